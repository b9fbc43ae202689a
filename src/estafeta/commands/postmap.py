"""postmap: make, query and change lookup tables (postmap(1))."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from estafeta.commands.postmap_tool import Request, command

_USAGE = "usage: postmap [-bfFhimnNoprsuUvw] [-c config_dir] [-d key] [-q key] [map_type:]file..."


def main(argv: Sequence[str] | None = None) -> int:
    """Run postmap with ``argv`` (without the program's name); the exit status."""
    request = Request(program="postmap", letters="bfFhimnNoprsuUvwc:d:q:", usage=_USAGE)
    return command(request, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
