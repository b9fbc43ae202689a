"""sasldblistusers2(8): name the accounts in a sasldb.

Source: sasldblistusers2(8). An account without a password in clear (saslpasswd2 -n) is shown with ``authPassword``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

_USAGE = """\
sasldblistusers2: usage: sasldblistusers2 [-v] [[-f] sasldb]
\t-f sasldb\tuse given file as sasldb
\t-v\tprint version number and exit
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run with ``argv`` (without the program's name); the exit status."""
    import getopt

    try:
        found, rest = getopt.getopt(list(sys.argv[1:] if argv is None else argv), "vf:")
    except getopt.GetoptError as error:
        sys.stderr.write(f"sasldblistusers2: invalid option -- '{error.opt}'\n{_USAGE}")
        return 1
    options = dict(found)
    if "-v" in options:
        sys.stderr.write("sasldblistusers2: Estafeta\n")
        return 0
    if len(rest) > 1:
        sys.stderr.write(_USAGE)
        return 1
    from estafeta.sasl import sasldb
    from estafeta.tables.index_write import read_index
    from estafeta.tables.table import TableError

    path = options.get("-f") or (rest[0] if rest else sasldb.DEFAULT_PATH)
    try:
        entries = read_index(path)
    except OSError as error:
        sys.stderr.write(f"sasldblistusers2: {path}: {error.strerror}\n")
        return 1
    except TableError as error:
        text = str(error)
        sys.stderr.write(f"sasldblistusers2: {sasldb.foreign_text(path) if 'another program' in text else text}\n")
        return 1
    accounts: dict[tuple[str, str], str] = {}
    for user, realm, name in sasldb.list_entries(entries):
        if name == sasldb.PASSWORD:
            accounts[user, realm] = name
        elif name.startswith(sasldb.VERIFIER):
            accounts.setdefault((user, realm), "authPassword")
    for (user, realm), name in sorted(accounts.items()):
        print(f"{user}@{realm}: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
