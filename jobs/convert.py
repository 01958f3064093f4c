"""`python jobs/convert.py --help` says what it does and takes."""

import sys

from aupipe.commands.convert import main

if __name__ == "__main__":
    sys.exit(main())
