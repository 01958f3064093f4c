"""Run the job `annotate`; see `python jobs/annotate.py --help`."""

import sys

from aupipe.commands.annotate import main

if __name__ == "__main__":
    sys.exit(main())
