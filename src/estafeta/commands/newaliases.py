"""newaliases: make the databases of ``alias_database`` anew (newaliases(1), sendmail(1) -bi)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from estafeta.commands.postalias import new_request
from estafeta.commands.postmap_tool import Fatal, Request, load_settings, parse_command_line, update


def _databases(request: Request) -> list[str]:
    from estafeta.config.config import load_config
    from estafeta.config.values import split_words

    value = load_config(request.config_directory).get("alias_database")
    return [name if ":" in name else f"{request.default_type}:{name}" for name in split_words(value)]


def rebuild(config_directory: str | None = None) -> int:
    """Make all alias databases; the exit status."""
    request = new_request()
    request.config_directory = config_directory
    try:
        load_settings(request)
        for spec in _databases(request):
            update(request, spec)
    except Fatal as err:
        print(f"{request.program}: fatal: {err}", file=sys.stderr)
        return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run newaliases with ``argv`` (without the program's name); the exit status."""
    request = Request(program="newaliases", letters="c:v", usage="usage: newaliases [-C config_dir] [-v]")
    arguments = sys.argv[1:] if argv is None else argv
    # sendmail's spelling of the configuration directory (or its main.cf) is -C
    try:
        parse_command_line(request, [f"-c{a[2:]}" if a.startswith("-C") else a for a in arguments])
    except Fatal as err:
        print(f"newaliases: fatal: {err}", file=sys.stderr)
        return 1
    return rebuild(request.config_directory)


if __name__ == "__main__":
    sys.exit(main())
