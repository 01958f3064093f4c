"""`python jobs/synthesize.py --help` says what it does and takes."""

import sys

from aupipe.commands.synthesize import main

if __name__ == "__main__":
    sys.exit(main())
