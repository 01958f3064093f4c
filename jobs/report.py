"""Run the job `report`; see `python jobs/report.py --help`."""

import sys

from aupipe.commands.report import main

if __name__ == "__main__":
    sys.exit(main())
