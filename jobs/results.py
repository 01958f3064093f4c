"""Run the job `results`; see `python jobs/results.py --help`."""

import sys

from aupipe.commands.results import main

if __name__ == "__main__":
    sys.exit(main())
