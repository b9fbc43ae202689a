"""The ``{ }`` groups in table names and in maps parameters.

Source: DATABASE_README (inline:, pipemap:), postconf(5). Pure; each function is linear in its input.
"""

from __future__ import annotations

BLANK = " \t\r\n"


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
