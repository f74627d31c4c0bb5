"""``python -m minicontainer``."""

import sys

from minicontainer.cli import main

sys.exit(main())
