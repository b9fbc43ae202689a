"""The options file of MySQL and MariaDB clients, as far as a table needs it.

Source: mysql_table(5) option_file, option_group; the manual of MariaDB about option files. Read when the table is opened.
"""

from __future__ import annotations

import glob
import os

_DEFAULT_FILES = ("/etc/my.cnf", "/etc/mysql/my.cnf")
_DEPTH = 8


def read_options(file: str, groups: frozenset[str]) -> dict[str, str]:
    """The options of ``groups``, later ones winning; ``file`` empty: the default places. A file that is missing has none."""
    found: dict[str, str] = {}
    for path in (file,) if file else _DEFAULT_FILES:
        _read(path, groups, found, 0)
    return found


def _read(path: str, groups: frozenset[str], found: dict[str, str], depth: int) -> None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            lines = stream.read().splitlines()
    except OSError:
        return
    group = ""
    for line in lines:
        text = line.strip()
        if not text or text[0] in "#;":
            continue
        if text.startswith("["):
            group = text[1:].partition("]")[0].strip()
        elif text.startswith("!include") and depth < _DEPTH:
            command, _, target = text.partition(" ")
            target = target.strip()
            names = [target] if command == "!include" else sorted(glob.glob(os.path.join(target, "*.cnf")))
            for name in names:
                _read(name, groups, found, depth + 1)
        elif group in groups:
            name, _, value = text.partition("=")
            value = value.strip()
            if len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]:
                value = value[1:-1]
            found[name.strip().replace("_", "-")] = value
