"""Expansion of `$name` and its relatives in parameter values.

Source: postconf(5) "A parameter value may refer to other parameters"; COMPATIBILITY_README for the `<level` operators.
The corners (what is stripped, what is an error) were measured with `postconf -x` of Postfix 3.7.

Forms: `$name`, `${name}`, `$(name)`, `${name?text}`, `${name:text}`, `${name?{a}:{b}}`, `${{x} == {y} ? {a} : {b}}`
with `==`, `!=`, `<`, `<=`, `>=`, `>` (numeric when both sides are numbers) and the same with `level` appended
(`<level`, compares compatibility levels); `$$` is a dollar sign. Values expand recursively; a loop is an error.
Invariant: text expands or ExpandError is raised, nothing else.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 100
"""How deep values may refer to one another before it is taken for a loop."""

_WHITE = " \t\r\n\f\v"
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_CLOSING = {"{": "}", "(": ")"}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}

Lookup = Callable[[str], "str | None"]


class ExpandError(Exception):
    """The text has a malformed `$` expression, or its values refer to one another without end. One line."""


def expand(text: str, lookup: Lookup) -> str:
    """Expand `text`; `lookup` gives the unexpanded value of a name, or None for one that does not exist."""
    return text if "$" not in text else _expand(text, lookup, 0)


def _expand(text: str, lookup: Lookup, depth: int) -> str:
    if "$" not in text:
        return text
    if depth > MAX_DEPTH:
        raise ExpandError(f'unreasonable macro call nesting: "{text[:60]}"')
    out: list[str] = []
    start = 0
    while (dollar := text.find("$", start)) >= 0:
        out.append(text[start:dollar])
        following = text[dollar + 1 : dollar + 2]
        if following == "$":
            out.append("$")
            start = dollar + 2
        elif following in _CLOSING:
            end = _balanced(text, dollar + 1)
            if end < 0:
                raise ExpandError(f'truncated macro reference: "{text}"')
            out.append(_reference(text[dollar + 2 : end - 1], lookup, depth))
            start = end
        else:
            end = _name_end(text, dollar + 1)
            if end == dollar + 1:
                raise ExpandError(f'empty macro name: "{text}"')
            out.append(_expand(lookup(text[dollar + 1 : end]) or "", lookup, depth + 1))
            start = end
    out.append(text[start:])
    return "".join(out)


def names_in(text: str) -> list[str]:
    """Every name that `text` refers to, in all branches of its conditions, in order. Raises ExpandError."""
    found: list[str] = []
    _collect(text, found, 0)
    return found


def _collect(text: str, found: list[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ExpandError(f'unreasonable macro call nesting: "{text[:60]}"')
    start = 0
    while (dollar := text.find("$", start)) >= 0:
        following = text[dollar + 1 : dollar + 2]
        if following == "$":
            start = dollar + 2
        elif following in _CLOSING:
            start = _balanced(text, dollar + 1)
            if start < 0:
                raise ExpandError(f'truncated macro reference: "{text}"')
            body = text[dollar + 2 : start - 1]
            if body.lstrip(_WHITE).startswith("{"):
                _collect(body, found, depth + 1)
            else:
                # The evaluator checks the syntax on the way; the branches are then read as plain text.
                _reference(body, lambda name: None, 0)
                begin = _skip(body, 0)
                end = _name_end(body, begin)
                found.append(body[begin:end])
                _collect(body[end:], found, depth + 1)
        else:
            end = _name_end(text, dollar + 1)
            if end == dollar + 1:
                raise ExpandError(f'empty macro name: "{text}"')
            found.append(text[dollar + 1 : end])
            start = end


def _balanced(text: str, start: int) -> int:
    """The index just after the brace that closes the one at `start`, or -1."""
    opening = text[start]
    closing = _CLOSING[opening]
    level = 0
    for index in range(start, len(text)):
        character = text[index]
        if character == opening:
            level += 1
        elif character == closing:
            level -= 1
            if level == 0:
                return index + 1
    return -1


def _name_end(text: str, start: int) -> int:
    while start < len(text) and text[start] in _NAME:
        start += 1
    return start


def _skip(text: str, start: int) -> int:
    while start < len(text) and text[start] in _WHITE:
        start += 1
    return start


def _group(text: str, start: int) -> tuple[str, int]:
    """The text within the braces that open at `start`, and the index of what follows, past white space."""
    end = _balanced(text, start)
    if end < 0:
        raise ExpandError(f'missing closing brace in: "{text}"')
    return text[start + 1 : end - 1], _skip(text, end)


def _reference(body: str, lookup: Lookup, depth: int) -> str:
    """Expand what stands between `${` and `}`."""
    start = _skip(body, 0)
    if body[start : start + 1] == "{":
        holds, position = _comparison(body, start, lookup, depth)
        value: str | None = "true" if holds else ""
    else:
        end = _name_end(body, start)
        position = _skip(body, end)
        if position < len(body) and body[position] not in "?:":
            raise ExpandError(f'attribute name syntax error at: "...{body[:end]}>>>{body[end:]}"')
        if end == start:
            raise ExpandError(f'empty macro name: "${{{body}}}"')
        value = lookup(body[start:end])
        holds = bool(value)
    if position == len(body):
        return _expand(value or "", lookup, depth + 1)
    chosen = _choose(body, position, holds)
    return _expand(chosen, lookup, depth + 1)


def _choose(body: str, position: int, holds: bool) -> str:
    """The branch to take of `?yes`, `:no`, `?{yes}:no` or `?{yes}:{no}` at `position`."""
    chosen = ""
    if body[position] == "?":
        after = _skip(body, position + 1)
        if body[after : after + 1] != "{":
            return body[position + 1 :] if holds else ""
        yes, position = _group(body, after)
        if holds:
            chosen = yes
        if position == len(body):
            return chosen
        if body[position] != ":":
            raise ExpandError(f'":" expected at: "...{body[:position]}>>>{body[position:]}"')
    elif body[position] != ":":
        raise ExpandError(f'"?" or ":" expected at: "...{body[:position]}>>>{body[position:]}"')
    after = _skip(body, position + 1)
    if body[after : after + 1] != "{":
        return chosen if holds else body[position + 1 :]
    no, end = _group(body, after)
    if end != len(body):
        raise ExpandError(f'unexpected input at: "...{body[:end]}>>>{body[end:]}"')
    return chosen if holds else no


def _comparison(body: str, start: int, lookup: Lookup, depth: int) -> tuple[bool, int]:
    """Evaluate `{left} operator {right}` at `start`; also the index of what follows."""
    left, position = _group(body, start)
    end = position
    while end < len(body) and body[end] in "<>!=":
        end += 1
    symbol = body[position:end]
    compare = _COMPARE.get(symbol)
    if compare is None:
        raise ExpandError(f'"==" or "!=" or "<" or "<=" or ">=" or ">" expected at: "...{body[:position]}>>>{body[position:]}"')
    by_level = body.startswith("level", end)
    after = _skip(body, end + 5 if by_level else end)
    if body[after : after + 1] != "{":
        raise ExpandError(f'"{{expression}}" expected at: "...{body[:end]}>>>{body[end:]}"')
    right, position = _group(body, after)
    left, right = _expand(left, lookup, depth + 1), _expand(right, lookup, depth + 1)
    if by_level:
        return compare(compatibility_level(left), compatibility_level(right)), position
    if _all_digits(left) and _all_digits(right):
        return compare(int(left), int(right)), position
    return compare(left, right), position


def _all_digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 1000


def compatibility_level(text: str) -> tuple[int, int, int]:
    """A compatibility level ("2", "3.6", "3.6.1") as numbers to compare. Raises ExpandError."""
    parts = text.strip().split(".")
    if len(parts) > 3 or not all(_all_digits(part) and len(part) < 10 for part in parts):
        raise ExpandError(f'malformed compatibility level syntax: "{text}"')
    numbers = [int(part) for part in parts] + [0, 0]
    return numbers[0], numbers[1], numbers[2]
