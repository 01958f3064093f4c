"""Run the job `tune`; see `python jobs/tune.py --help`."""

import sys

from aupipe.commands.tune import main

if __name__ == "__main__":
    sys.exit(main())
