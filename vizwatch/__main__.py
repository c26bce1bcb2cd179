"""``python -m vizwatch``: the command line."""

import sys

from vizwatch.cli import main

if __name__ == "__main__":
    sys.exit(main())
