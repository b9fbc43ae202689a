"""saslpasswd2(8): make, change and delete the accounts in a sasldb.

Source: saslpasswd2(8), its behaviour where the page is silent (an account is made with or without -c; exit statuses 1, 7).
The file is sasl/sasldb.py's, not Cyrus's Berkeley database; mode 0640, group sasl when there is one.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence

_USAGE = """\
saslpasswd2: usage: saslpasswd2 [-v] [-c [-p] [-n]] [-d] [-a appname] [-f sasldb] [-u DOM] userid
\t-p\tpipe mode -- no prompt, password read on stdin
\t-c\tcreate -- make the account if it is not there
\t-d\tdisable -- delete the account
\t-n\tno userPassword -- keep no password in clear, only what SCRAM, PLAIN and LOGIN need
\t-f sasldb\tuse given file as sasldb
\t-a appname\tuse appname as application name
\t-u DOM\tuse DOM for user domain
\t-v\tprint version number and exit
"""
_BAD_PARAMETER = 7


def main(argv: Sequence[str] | None = None) -> int:
    """Run with ``argv`` (without the program's name); the exit status."""
    import getopt

    try:
        found, rest = getopt.getopt(list(sys.argv[1:] if argv is None else argv), "vcpdna:f:u:")
    except getopt.GetoptError as error:
        sys.stderr.write(f"saslpasswd2: invalid option -- '{error.opt}'\n{_USAGE}")
        return 1
    options = dict(found)
    if "-v" in options:
        sys.stderr.write("saslpasswd2: Estafeta\n")
        return 0
    if len(rest) != 1 or ("-c" in options and "-d" in options):
        sys.stderr.write(_USAGE)
        return 1
    user, at, domain = rest[0].rpartition("@")
    if not at or not user:
        user, domain = rest[0], options.get("-u") or socket.gethostname()
    if not user or not all(char.isprintable() for char in user + domain):
        return _failed("invalid parameter supplied", _BAD_PARAMETER)
    password = b""
    if "-d" not in options:
        try:
            password = _password("-p" in options)
        except ValueError as error:
            return _failed(str(error), 1)
        if not password:
            return _failed("invalid parameter supplied", _BAD_PARAMETER)
    from estafeta.sasl.sasldb import DEFAULT_PATH

    return _change(options.get("-f") or DEFAULT_PATH, user, domain, password, in_clear="-n" not in options)


def _failed(text: str, status: int) -> int:
    sys.stderr.write(f"saslpasswd2: {text}\n")
    return status


def _password(pipe: bool) -> bytes:
    """From the terminal, twice, or the first line of standard input; raises ValueError."""
    if pipe or not sys.stdin.isatty():
        return sys.stdin.buffer.readline().rstrip(b"\r\n")
    from getpass import getpass

    try:
        first = getpass("Password: ")
        second = getpass("Again (for verification): ")
    except EOFError:
        return b""
    if first != second:
        raise ValueError("passwords don't match; aborting")
    return first.encode()


def _change(path: str, user: str, realm: str, password: bytes, *, in_clear: bool) -> int:
    """An empty password deletes."""
    from estafeta.sasl import sasldb
    from estafeta.tables.index_write import exclusive, read_index, write_index
    from estafeta.tables.table import TableError

    try:
        with exclusive(path):
            try:
                entries = read_index(path)
            except FileNotFoundError:
                if not password:
                    return 0
                entries = {}
            is_new = not os.path.exists(path)
            if password:
                from estafeta.sasl.scram import make_verifier

                for name in sasldb.HASH_NAMES:
                    verifier = make_verifier(password, name)
                    entries[sasldb.entry_key(user, realm, sasldb.VERIFIER + name)] = sasldb.write_verifier(verifier)
                key = sasldb.entry_key(user, realm, sasldb.PASSWORD)
                if in_clear:
                    entries[key] = password
                else:
                    entries.pop(key, None)
            else:
                start = sasldb.entry_key(user, realm, "")
                entries = {key: value for key, value in entries.items() if not key.startswith(start)}
            write_index(path, entries, 0o640)
            if is_new:
                _give_to_group(path)
    except TableError as error:
        text = str(error)
        return _failed(sasldb.foreign_text(path) if "another program" in text else text, 1)
    except OSError as error:
        return _failed(f"{path}: {error.strerror}", 1)
    return 0


def _give_to_group(path: str) -> None:
    """To group sasl, as Debian has it; nothing is wrong without one."""
    import grp

    try:
        os.chown(path, -1, grp.getgrnam("sasl").gr_gid)
    except (KeyError, OSError):
        pass


if __name__ == "__main__":
    sys.exit(main())
