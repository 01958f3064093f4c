"""`python jobs/train.py --help` says what it does and takes."""

import sys

from aupipe.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
