"""``python -m tb_nanwatch``: the same as the command ``nanwatch``."""

import sys

from tb_nanwatch.cli import main

if __name__ == "__main__":
    sys.exit(main())
