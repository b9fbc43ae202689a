"""Logical lines of Postfix files: comments dropped, continuation lines joined, first line number kept.

Source: postmap(1) INPUT FILE FORMAT, regexp_table(5) TABLE FORMAT. Invariant: comment and blank lines between a line
and its continuation do not end it.
"""

from __future__ import annotations

from collections.abc import Iterator


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number of the first physical line, logical line without trailing white space)."""
    number = 0
    parts: list[str] = []
    for at, line in enumerate(text.split("\n"), 1):
        stripped = line.lstrip()
        if not stripped or stripped[0] == "#":
            continue
        if line[0] in " \t\r\v\f" and parts:
            parts.append(line)
            continue
        if parts:
            yield number, "".join(parts).rstrip()
        parts = [line]
        number = at
    if parts:
        yield number, "".join(parts).rstrip()
