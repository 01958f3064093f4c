"""Run the job `evaluate`; see `python jobs/evaluate.py --help`."""

import sys

from aupipe.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
