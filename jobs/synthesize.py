"""Run the job `synthesize`; see `python jobs/synthesize.py --help`."""

import sys

from aupipe.commands.synthesize import main

if __name__ == "__main__":
    sys.exit(main())
