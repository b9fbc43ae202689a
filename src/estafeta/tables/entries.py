"""The text form of indexed tables: ``key whitespace value`` (postmap) and ``name: value`` (postalias).

Source: postmap(1) INPUT FILE FORMAT, aliases(5). Invariants: bytes in, a dictionary of bytes out, in the order of the
file; a bad line gives one warning with file and line and is left out; the first of two equal keys wins unless told
otherwise. Quotes around a key are part of the key, as in Postfix, so that a quoted localpart finds its entry.

The postmap reader has a fast path: a plain line costs one ``split``; everything else goes through the careful one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from estafeta.tables.table import printable

Warn = Callable[[str], None]


def fold_bytes(key: bytes) -> bytes:
    """``key`` folded to lower case; bytes that are not UTF-8 fold their ASCII letters only."""
    if key.isascii():
        return key.lower()
    try:
        return key.decode().casefold().encode()
    except UnicodeDecodeError:
        return key.lower()


@dataclass(slots=True)
class EntryReader:
    """Collects the entries of one source."""

    path: str
    warn: Warn
    fold: bool = True
    utf8: bool = True
    on_duplicate: str = "warn"  # "warn", "ignore" (-w), "replace" (-r)
    value_of: Callable[[bytes], bytes] | None = None  # -F: file names to contents; raises OSError
    ignoring: str = (
        ""  # ends the warning of a bad line: postmap says nothing, texthash " -- ignoring this line"
    )
    duplicate_prefix: str | None = None  # None: "PATH, line N" (texthash); postmap names the output file
    entries: dict[bytes, bytes] = field(default_factory=dict)

    def _complain(self, line: int, text: str) -> None:
        self.warn(f"{self.path}, line {line}: {text}")

    def _add(self, line: int, key: bytes, value: bytes) -> None:
        if self.value_of is not None:
            try:
                value = self.value_of(value)
            except OSError as err:
                self._complain(line, f"open {err.filename}: {err.strerror}: skipping this entry")
                return
        if self.fold:
            key = fold_bytes(key)
        if key in self.entries:
            if self.on_duplicate == "ignore":
                return
            if self.on_duplicate == "warn":
                place = self.duplicate_prefix or f"{self.path}, line {line}"
                self.warn(f'{place}: duplicate entry: "{printable(key)}"')
                return
        self.entries[key] = value

    def read_map(self, data: bytes) -> None:
        """Add the entries of a postmap source."""
        for line, text in _logical(data):
            self._map_line(line, text)

    def read_map_fast(self, data: bytes) -> None:
        """As ``read_map`` for big plain files: lines that need thought are found first, the rest is split in bulk."""
        if (
            not data.isascii()
            or self.value_of is not None
            or b"\n\t" in data
            or b"\n " in data
            or b'"' in data
        ):
            self.read_map(data)
            return
        entries = self.entries
        fold = self.fold
        line = 0
        slow = self._map_line
        for text in data.split(b"\n"):
            line += 1
            pair = text.split(None, 1)
            if len(pair) != 2 or text[0] == 35:
                if not pair or text.lstrip()[:1] == b"#":
                    continue
                slow(line, text)
                continue
            key, value = pair
            if key[-1] == 58 or (line == 1 and text[0] in b" \t"):
                slow(line, text)
                continue
            if fold:
                key = key.lower()
            if key in entries:
                slow(line, text)
                continue
            entries[key] = value.rstrip()

    def _map_line(self, line: int, text: bytes) -> None:
        text = text.strip()
        if self.utf8 and not _valid(text):
            self._complain(line, f'non-UTF-8 input "{printable(text)}" -- ignoring this line')
            return
        if text[:1] == b'"':
            end = _closing_quote(text)
            if end < 0:
                self._complain(line, f"unbalanced '\"' in '{printable(text)}' -- ignoring this line")
                return
            # White space inside the quotes is part of the key; what follows up to the next white space too.
            while end < len(text) and text[end] not in b" \t\r\n\v\f":
                end += 1
            key, value = text[:end], text[end:].lstrip()
        else:
            pair = text.split(None, 1)
            key, value = (pair[0], pair[1]) if len(pair) == 2 else (text, b"")
        if not value:
            self._complain(line, f"expected format: key whitespace value{self.ignoring}")
            return
        if key.endswith(b":"):
            self._complain(line, 'record is in "key: value" format; is this an alias file?')
        self._add(line, key, value)

    def read_aliases(self, data: bytes) -> None:
        """Add the entries of an alias source."""
        for line, text in _logical(data):
            text = text.rstrip()
            if self.utf8 and not _valid(text):
                self._complain(line, f'non-UTF-8 input "{printable(text)}" -- ignoring this line')
                continue
            found = split_alias(text)
            if isinstance(found, str):
                self._complain(line, found)
                continue
            self._add(line, *found)


def _valid(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _logical(data: bytes) -> Iterable[tuple[int, bytes]]:
    number = 0
    parts: list[bytes] = []
    for at, line in enumerate(data.split(b"\n"), 1):
        stripped = line.lstrip()
        if not stripped or stripped[0] == 35:
            continue
        if line[0] in b" \t\r\v\f" and parts:
            parts.append(line)
            continue
        if parts:
            yield number, b"".join(parts)
        parts = [line]
        number = at
    if parts:
        yield number, b"".join(parts)


def _closing_quote(text: bytes) -> int:
    """Index just after the quote that closes ``text[0]``, or -1."""
    at = 1
    while True:
        quote = text.find(b'"', at)
        if quote < 0:
            return -1
        back = text.find(b"\\", at, quote)
        if back < 0:
            return quote + 1
        at = back + 2


def split_alias(text: bytes) -> tuple[bytes, bytes] | str:
    """The name (unquoted) and value of an alias line, or what is wrong with it.

    The name follows the rules of an RFC 822 local address: comments are kept apart, quotes removed.
    """
    words: list[bytes] = []
    at = 0
    colon = -1
    while at < len(text):
        char = text[at : at + 1]
        if char == b'"':
            end = _closing_quote(text[at:])
            if end < 0:
                return "need name:value pair"
            words.append(_unquote(text[at + 1 : at + end - 1]))
            at += end
        elif char == b"(":
            end = text.find(b")", at)
            if end < 0:
                return "need name:value pair"
            words.append(text[at : end + 1])
            at = end + 1
        elif char == b":":
            colon = at
            break
        elif char in b" \t\r\n":
            at += 1
        elif char == b"@":
            return "name must be local"
        elif char in b"<>,;[]\\":
            return "need name:value pair"
        else:
            end = at
            while end < len(text) and text[end] not in b' \t\r\n":(@<>,;[]\\':
                end += 1
            words.append(text[at:end])
            at = end
    if colon < 0 or not words:
        return "need name:value pair"
    value = text[colon + 1 :].strip()
    if not value:
        return "need name:value pair"
    return b" ".join(words), value


def _unquote(text: bytes) -> bytes:
    if b"\\" not in text:
        return text
    out = bytearray()
    at = 0
    while at < len(text):
        if text[at] == 92 and at + 1 < len(text):
            at += 1
        out.append(text[at])
        at += 1
    return bytes(out)
