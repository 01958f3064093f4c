"""Run the job `preprocess`; see `python jobs/preprocess.py --help`."""

import sys

from aupipe.commands.preprocess import main

if __name__ == "__main__":
    sys.exit(main())
