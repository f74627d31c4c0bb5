"""``python -m labs`` is the command ``labs``."""

import sys

from labs.cli import main

if __name__ == "__main__":
    sys.exit(main())
