"""Run the job `bench`; see `python jobs/bench.py --help`."""

import sys

from aupipe.commands.bench import main

if __name__ == "__main__":
    sys.exit(main())
