"""``python -m tests.soak`` is ``python -m tests.soak.kill``."""

import sys

from .kill import main

if __name__ == "__main__":
    sys.exit(main())
