"""Run the job `convert`; see `python jobs/convert.py --help`."""

import sys

from aupipe.commands.convert import main

if __name__ == "__main__":
    sys.exit(main())
