"""Argument parsers, one per job. `jobs/x.py` and the installed `aupipe x` both call `aupipe.commands.x.main`."""
