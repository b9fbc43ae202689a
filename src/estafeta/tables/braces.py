"""Split text with ``{ }`` groups: the lists in table names and in maps parameters.

Source: DATABASE_README (inline:, pipemap:), postconf(5). Pure; each function is linear in its input.
"""

from __future__ import annotations

BLANK = " \t\r\n"


def split_list(text: str, separators: str = ", \t\r\n") -> list[str]:
    """Split on separators outside of ``{ }``; a group that is not closed runs to the end."""
    words: list[str] = []
    depth = 0
    start = -1
    for at, char in enumerate(text):
        if depth == 0 and char in separators:
            if start >= 0:
                words.append(text[start:at])
                start = -1
            continue
        if start < 0:
            start = at
        if char == "{":
            depth += 1
        elif char == "}" and depth > 0:
            depth -= 1
    if start >= 0:
        words.append(text[start:])
    return words


def close_of(text: str) -> int:
    """Index of the ``}`` that closes the ``{`` which ``text`` begins with, or -1."""
    depth = 0
    for at, char in enumerate(text):
        if char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return at
    return -1


def inside(text: str) -> str | None:
    """What stands inside the braces that enclose the whole of ``text``, stripped; None when they do not."""
    if not text.startswith("{") or close_of(text) != len(text) - 1:
        return None
    return text[1:-1].strip(BLANK)
