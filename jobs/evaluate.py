"""`python jobs/evaluate.py --help` says what it does and takes."""

import sys

from aupipe.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
