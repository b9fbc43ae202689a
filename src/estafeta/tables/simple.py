"""Tables without a file: static, inline, fail, environ, unix, internal.

Source: DATABASE_README. Errors name the specification, as Postfix words them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from estafeta.config.values import split_words
from estafeta.tables.braces import BLANK, close_of, inside
from estafeta.tables.table import LookupFailed, OpenOptions, TableError, fold_key, is_utf8


class StaticTable:
    """static:text, static:{ text with blanks }: the same answer to every key."""

    is_pattern = True

    def __init__(self, text: str, options: OpenOptions) -> None:
        """Raises TableError when a brace is not closed."""
        self.name = f"static:{text}"
        self._utf8 = options.utf8
        if text.startswith("{"):
            end = close_of(text)
            if end < 0:
                raise TableError(f"bad static:name syntax: missing '}}' in \"{text}\"")
            if text[end + 1 :].strip(BLANK):
                raise TableError(f"bad static:name syntax: syntax error after '}}' in \"{text}\"")
            text = text[1:end].strip(BLANK)
        self._value = text

    async def lookup(self, key: str) -> str | None:
        """The value, whatever the key."""
        if self._utf8 and not is_utf8(key):
            return None
        return self._value

    def close(self) -> None:
        """Nothing to release."""


class MappingTable:
    """A fixed mapping in memory: inline:, environ:, internal:."""

    is_pattern = False

    def __init__(self, name: str, entries: Mapping[str, str], fold: bool) -> None:
        self.name = name
        self._fold = fold
        self._entries = {fold_key(key): value for key, value in entries.items()} if fold else dict(entries)

    async def lookup(self, key: str) -> str | None:
        """The value of ``key``."""
        return self._entries.get(fold_key(key) if self._fold else key)

    def items(self) -> Iterator[tuple[str, str]]:
        """Every entry."""
        yield from self._entries.items()

    def close(self) -> None:
        """Nothing to release."""


def open_inline(text: str, options: OpenOptions) -> MappingTable:
    """inline:{ key=value, { key = text with blanks } }; the last of equal keys counts. Raises TableError."""
    name = f"inline:{text}"
    need = 'need "inline:{name=value...}"'
    body = inside(text)
    if not body:
        raise TableError(f'bad syntax: "{name}"; {need}')
    entries: dict[str, str] = {}
    for item in split_words(body):
        if item.startswith("{"):
            group = inside(item)
            if group is None:
                raise TableError(f'syntax error in "{item}" of "{name}"; {need}')
            item = group
        key, equals, value = item.partition("=")
        if not equals:
            raise TableError(f"missing '=' after attribute name: \"{name}\"; {need}")
        key = key.strip(BLANK)
        if not key:
            raise TableError(f'missing attribute name: "{name}"; {need}')
        entries[fold_key(key) if options.fold else key] = value.strip(BLANK)
    return MappingTable(name, entries, options.fold)


def open_environ(text: str, _options: OpenOptions) -> MappingTable:
    """environ:anything: the environment of this process."""
    return MappingTable(f"environ:{text}", os.environ, fold=False)


class FailTable:
    """fail:text: no look-up succeeds; for tests of error handling."""

    is_pattern = True

    def __init__(self, text: str, _options: OpenOptions) -> None:
        self.name = f"fail:{text}"

    async def lookup(self, key: str) -> str | None:
        """Raises LookupFailed."""
        raise LookupFailed(self.name, "Application error")

    def close(self) -> None:
        """Nothing to release."""
