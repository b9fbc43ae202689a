"""``python -m estafeta.commands.postsuper``."""

from __future__ import annotations

import sys

from estafeta.commands.postsuper import main

if __name__ == "__main__":
    sys.exit(main())
