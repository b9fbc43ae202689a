"""postalias: make, query and change alias databases (postalias(1), aliases(5))."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from estafeta.commands.postmap_tool import Request, command

_USAGE = "usage: postalias [-Nfinoprsuvw] [-c config_dir] [-d key] [-q key] [map_type:]file..."


def new_request() -> Request:
    """A request with the options of postalias."""
    return Request(program="postalias", letters="Nfinoprsuvwc:d:q:", usage=_USAGE, aliases=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run postalias with ``argv`` (without the program's name); the exit status."""
    return command(new_request(), sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
