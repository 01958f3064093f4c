"""Run the job `submit`; see `python jobs/submit.py --help`."""

import sys

from aupipe.commands.submit import main

if __name__ == "__main__":
    sys.exit(main())
