"""What counts as a host name in answers and destinations.

Source: RFC 1123 section 2.1, with the underscore that real networks use; behaviour of Postfix (an all-numeric
name is none).
"""

from __future__ import annotations

import re

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\Z")


def valid_hostname(name: str) -> bool:
    """Whether ``name`` (ASCII, no final dot) is a host name and not a number."""
    if not name or len(name) > 255 or looks_numeric(name):
        return False
    return all(_LABEL.match(label) for label in name.split("."))


def looks_numeric(name: str) -> bool:
    """Whether ``name`` is made of digits and dots alone."""
    return bool(name) and all(char in "0123456789." for char in name)
