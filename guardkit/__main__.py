"""``python -m guardkit``: the same as the ``guardkit`` command."""

import sys

from guardkit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
