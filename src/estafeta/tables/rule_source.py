"""Where the rules of a pattern table are: in a file that is watched, or in the table's name.

Source: regexp_table(5), cidr_table(5), DATABASE_README. Invariant: a file that cannot be read again leaves the old rules in use.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

from estafeta.config.values import split_words
from estafeta.tables.braces import inside
from estafeta.tables.lines import logical_lines
from estafeta.tables.table import OpenOptions, TableError
from estafeta.tables.watch import FileWatch

Line = tuple[int, str]
R = TypeVar("R")


def in_memory_lines(kind: str, text: str) -> list[tuple[int, str]]:
    """The rules of a table whose text is its name: { {rule}, {rule} }. Raises TableError."""
    body = inside(text)
    if body is None:
        raise TableError(f"{kind} map: missing '}}' in \"{text}\"")
    lines: list[tuple[int, str]] = []
    for item in split_words(body):
        if not item.startswith("{"):
            raise TableError(f"{kind} map: no '{{' at start of text in \"{item}\"")
        rule = inside(item)
        if rule is None:
            raise TableError(f"{kind} map: missing '}}' in \"{item}\"")
        lines.append((len(lines) + 1, rule))
    return lines


class RuleSource(Generic[R]):
    """The rules of one table, as ``parse`` makes them from its lines."""

    __slots__ = ("_kind", "_parse", "_path", "_rules", "_watch")

    def __init__(self, kind: str, source: str, options: OpenOptions, parse: Callable[[list[Line]], R]) -> None:
        """``source``: file name or { {rule}, ... }. Raises TableError."""
        self._kind = kind
        self._parse = parse
        self._path = source
        self._watch: FileWatch | None = None
        if not source.startswith("{"):
            if options.base_directory:
                self._path = os.path.join(options.base_directory, source)
            self._watch = FileWatch(self._path, options.clock, options.check_interval_s)
        try:
            self._rules = self._read()
        except OSError as err:
            raise TableError(f"open {self._path}: {err.strerror}") from err

    def _read(self) -> R:
        if self._watch is None:
            return self._parse(in_memory_lines(self._kind, self._path))
        with open(self._path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return self._parse(list(logical_lines(file.read())))

    def rules(self) -> R:
        """The rules of now."""
        if self._watch is not None:
            stamp = self._watch.changed()
            if stamp is not None:
                try:
                    self._rules = self._read()
                except OSError:
                    pass
                else:
                    self._watch.accept(stamp)
        return self._rules
