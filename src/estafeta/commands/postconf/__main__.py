"""``python -m estafeta.commands.postconf``."""

from __future__ import annotations

import sys

from estafeta.commands.postconf import main

if __name__ == "__main__":
    sys.exit(main())
