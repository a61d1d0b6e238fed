"""``python -m bort``: the same as the ``bort`` command."""

import sys

from bort.cli import main

if __name__ == "__main__":
    sys.exit(main())
