"""The measurements of `bench.py` that need no clone of the repository, one per file."""
