"""The right-hand side of an alias, a line of a .forward or :include: file: a list of places where mail goes.

Source: aliases(5). Items are separated by commas or blanks; quotes keep an item together; ``name <address>`` and comments are
read as in a header. Invariant: any text gives a list (perhaps empty), never an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from estafeta.mail.address import addresses_in, unquote_address
from estafeta.mail.text import to_bytes, to_text


class Kind(Enum):
    """What a target is."""

    ADDRESS = "address"
    COMMAND = "command"
    FILE = "file"
    INCLUDE = "include"


@dataclass(frozen=True, slots=True)
class Target:
    """One place; ``value``: the address (internal form), the command, the path."""

    kind: Kind
    value: str


_ITEM = re.compile(r'(?:"(?:[^"\\]|\\.)*"?|\((?:[^()\\]|\\.)*\)?|<[^>]*>?|\\.|[^",(<\\]|\\)+', re.DOTALL)
_WORD = re.compile(r'(?:"(?:[^"\\]|\\.)*"?|[^"\s])+', re.DOTALL)
_INCLUDE = ":include:"


def parse_targets(text: str) -> list[Target]:
    """The targets of one logical line."""
    found: list[Target] = []
    for item in _ITEM.findall(text):
        item = item.strip()
        if not item:
            continue
        plain = item[0] not in '"|/:\\'
        quoted_name = item[0] == '"' and not item.startswith(('"|', '"/', '":'))
        if (plain and ("<" in item or "(" in item)) or (quoted_name and "<" in item):
            found += [Target(Kind.ADDRESS, to_text(address)) for address in addresses_in(to_bytes(item))]
        else:
            found += [_target(word) for word in _WORD.findall(item)]
    return found


def _target(word: str) -> Target:
    if word.startswith("\\"):
        return Target(Kind.ADDRESS, "\\" + to_text(unquote_address(to_bytes(word[1:]))))
    value = to_text(unquote_address(to_bytes(word)))
    if value.startswith("|"):
        return Target(Kind.COMMAND, value[1:].strip())
    if value.startswith("/") and "@" not in value:
        return Target(Kind.FILE, value)
    if value[: len(_INCLUDE)].lower() == _INCLUDE:
        return Target(Kind.INCLUDE, value[len(_INCLUDE) :].strip())
    return Target(Kind.ADDRESS, value)


def parse_lines(text: str) -> list[Target]:
    """The targets of a .forward or :include: file: a line each, ``#`` starts a comment line."""
    return [target for line in text.split("\n") if not line.startswith("#") for target in parse_targets(line)]
