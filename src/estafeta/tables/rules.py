"""The file syntax that regexp: and pcre: tables share: rules, if/endif, flags, replacement text.

Source: regexp_table(5), pcre_table(5). Pure parsing: the text of a table in, rules out; a bad rule is one warning that
names file and line, and is skipped. Engines compile what comes out of here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

BLANK = " \t\r\n\v\f"
Template = tuple[str | int, ...]  # literal text and group numbers


class BadRule(Exception):
    """A rule that must be skipped; the argument is the warning, or empty when it was given already."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern as written: /text/flags."""

    text: str
    flags: str
    negated: bool


@dataclass(frozen=True, slots=True)
class RuleLine:
    """One logical line: kind is "rule", "if" or "endif"."""

    line: int
    kind: str
    pattern: Pattern | None
    result: str | None  # None: none was written


def parse_pattern(text: str, ending: str) -> tuple[Pattern, str]:
    """A pattern and the rest of the line; ``ending`` ends the warning. Raises BadRule."""
    negated = False
    at = 0
    while at < len(text) and (text[at] == "!" or text[at] in BLANK):
        if text[at] == "!":
            negated = not negated
        at += 1
    if at == len(text) or text[at].isalnum():
        raise BadRule("ignoring unrecognized request")
    delimiter = text[at]
    start = at = at + 1
    while at < len(text) and text[at] != delimiter:
        at += 2 if text[at] == "\\" else 1
    if at >= len(text):
        raise BadRule(f'no closing regexp delimiter "{delimiter}": {ending} this rule')
    end = at
    at += 1
    while at < len(text) and text[at] not in BLANK:
        at += 1
    return Pattern(text[start:end], text[end + 1 : at], negated), text[at:].lstrip(BLANK)


def parse_rule_line(line: int, text: str, ending: str) -> RuleLine:
    """One logical line; raises BadRule."""
    head = text[:2].lower()
    if head == "if" and not text[2:3].isalnum():
        pattern, rest = parse_pattern(text[2:].lstrip(BLANK), ending)
        return RuleLine(line, "if", pattern, rest or None)
    if text[:5].lower() == "endif" and not text[5:6].isalnum():
        return RuleLine(line, "endif", None, text[5:].strip(BLANK) or None)
    if not text or text[0].isalnum():
        raise BadRule("ignoring unrecognized request")
    pattern, rest = parse_pattern(text, ending)
    return RuleLine(line, "rule", pattern, rest or None)


def parse_rules(
    lines: Iterable[tuple[int, str]], warn: Callable[[int, str], None], ending: str
) -> Iterator[RuleLine]:
    """The good lines of a table, as they are read; ``warn`` takes line and text."""
    for line, text in lines:
        try:
            yield parse_rule_line(line, text, ending)
        except BadRule as err:
            warn(line, str(err))


_NAME = re.compile(r"[A-Za-z0-9_?:]+")


def parse_template(text: str, out_of_range: str, warn: Callable[[str], None]) -> Template:
    """Replacement text with $1 ${1} $(1) $$; raises BadRule. ``out_of_range`` words that warning."""
    parts: list[str | int] = []
    at = 0
    while True:
        dollar = text.find("$", at)
        if dollar < 0:
            break
        if dollar > at:
            parts.append(text[at:dollar])
        after = text[dollar + 1 : dollar + 2]
        if after == "$":
            parts.append("$")
            at = dollar + 2
            continue
        if after in ("{", "("):
            close = text.find("}" if after == "{" else ")", dollar)
            if close < 0:
                raise BadRule(f'truncated macro reference: "{text}"')
            name = text[dollar + 2 : close]
            at = close + 1
        else:
            found = _NAME.match(text, dollar + 1)
            name = found.group().rstrip("?:") if found else ""
            at = dollar + 1 + len(name)
        if not name:
            raise BadRule(f'empty macro name: "{text}"')
        if not (name.isascii() and name.isdigit()):
            warn(f'non-numeric replacement index "{name}"')
            raise BadRule("bad replacement syntax: skipping this rule")
        if int(name[:6]) < 1:
            warn(f'{out_of_range} replacement index "{name}"')
            raise BadRule("bad replacement syntax: skipping this rule")
        parts.append(int(name[:6]))
    if at < len(text):
        parts.append(text[at:])
    return tuple(parts)
