"""Developer tools that tests and `bench.py` share: drawn clips, local clusters, damage, and checks of whole runs.

Nothing here is part of the wheel. Tests import it as `harness`, because `tests` is on pytest's path.
"""
