"""`python jobs/tune.py --help` says what it does and takes."""

import sys

from aupipe.commands.tune import main

if __name__ == "__main__":
    sys.exit(main())
