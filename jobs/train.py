"""Run the job `train`; see `python jobs/train.py --help`."""

import sys

from aupipe.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
