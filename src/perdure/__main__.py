"""``python -m perdure`` is ``perdure``."""

from .cli import main

if __name__ == "__main__":
    main()
