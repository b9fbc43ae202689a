"""The one interface of all lookup tables, its two errors and the options they are opened with.

Source: DATABASE_README. Invariants: a look-up gives a result, None (not there) or LookupFailed (ask again later),
never a wrong answer; local tables never suspend, so ``run_now`` can drive them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class TableError(Exception):
    """A table cannot be opened or used as asked: one clear line for the administrator."""


class LookupFailed(Exception):
    """A look-up has no answer now: callers reply 451 or defer."""

    def __init__(self, table: str, reason: str) -> None:
        super().__init__(f"table {table}: {reason}")
        self.table = table
        self.reason = reason


class Table(Protocol):
    """A lookup table."""

    name: str  # "hash:/etc/aliases"
    is_pattern: bool  # regexp, pcre, cidr ...: asked with whole keys only, no partial keys

    async def lookup(self, key: str) -> str | None:
        """The value of ``key`` or None; raises LookupFailed."""

    def close(self) -> None:
        """Release what the table holds; a later look-up may fail."""


def warn_on_stderr(text: str) -> None:
    """The default place of warnings; daemons pass their log instead."""
    print(f"warning: {text}", file=sys.stderr)  # noqa: T201 - the one line of output of this room


def no_parameter(_name: str) -> str | None:
    """A main.cf without settings."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOptions:
    """How tables are opened."""

    fold: bool = True  # fold keys of fixed-string tables to lower case
    utf8: bool = True  # smtputf8_enable: keys and values must be valid UTF-8
    base_directory: str | None = None  # where relative file names start; None: the current directory
    warn: Callable[[str], None] = warn_on_stderr
    clock: Callable[[], float] = time.monotonic  # seconds; paces the checks for a changed file
    check_interval_s: float = 1.0
    # The value of a main.cf parameter, None if it is not set: for external tables in the old form ("mysql:name").
    parameter: Callable[[str], str | None] = no_parameter
    substitution: bool = True  # $1 in the results of patterns: not where a stranger's address would choose a program or a host
    jailed: bool = False  # the process will enter a jail: what must be asked outside of it needs somebody there


def fold_key(key: str) -> str:
    """``key`` in the case-insensitive form that indexes hold."""
    return key.lower() if key.isascii() else key.casefold()


def is_utf8(text: str) -> bool:
    """Whether ``text`` (bytes decoded with surrogateescape) was valid UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str | bytes) -> str:
    """``text`` for a warning: control characters and broken UTF-8 become question marks."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    return "".join(c if c.isprintable() else "?" for c in text)
