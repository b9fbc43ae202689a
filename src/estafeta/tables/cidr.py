"""cidr: tables, and the fast match of addresses that mynetworks uses too.

Source: cidr_table(5). Invariants: addresses are compared as numbers; a rule that the manual forbids (host bits, bad
length) is one warning and is skipped; the first rule that matches wins.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from estafeta.tables.rule_source import RuleSource
from estafeta.tables.rules import BLANK, BadRule
from estafeta.tables.table import LookupFailed, OpenOptions


@dataclass(frozen=True, slots=True)
class Network:
    """An address block: ``size_bytes`` 4 or 16, ``shift`` the number of host bits."""

    size_bytes: int
    prefix: int
    shift: int

    def contains(self, size_bytes: int, address: int) -> bool:
        """Whether the address (as a number of that size) lies in this block."""
        return size_bytes == self.size_bytes and address >> self.shift == self.prefix


class BadNetwork(ValueError):
    """An address pattern that cannot be used; the argument says why."""


def address_number(text: str) -> tuple[int, int] | None:
    """(size in bytes, number) of an IPv4 or IPv6 address; None when it is not one."""
    try:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        return None
    return len(packed), int.from_bytes(packed, "big")


def parse_network(text: str) -> Network:
    """``address``, ``address/length``, with or without [ ]; raises BadNetwork."""
    pattern = text
    if text.startswith("["):
        head, close, tail = text[1:].partition("]")
        if not close:
            raise BadNetwork(f"missing ']' character after \"{text}\"")
        if tail and not tail.startswith("/"):
            raise BadNetwork(f'garbage after "]": "{text}"')
        pattern = head + tail
    host, slash, length = pattern.partition("/")
    if slash and not (length.isascii() and length.isdigit()):
        raise BadNetwork(f'bad mask value in "{text}"')
    number = address_number(host)
    if number is None:
        raise BadNetwork(f'bad address pattern: "{text}"')
    size, value = number
    bits = size * 8
    if not slash:
        return Network(size, value, 0)
    if len(length) > 3 or int(length) > bits:
        raise BadNetwork(f'bad mask length in "{text}"')
    shift = bits - int(length)
    if value & ((1 << shift) - 1):
        family = socket.AF_INET if size == 4 else socket.AF_INET6
        base = socket.inet_ntop(family, (value >> shift << shift).to_bytes(size, "big"))
        raise BadNetwork(
            f'non-null host address bits in "{text}", perhaps you should use "{base}/{int(length)}" instead'
        )
    return Network(size, value >> shift, shift)


@dataclass(frozen=True, slots=True)
class CidrRule:
    """A rule or an ``if``: ``skip_to`` is the rule after its ``endif``."""

    network: Network
    negated: bool
    result: str | None  # None: an if
    skip_to: int


def parse_cidr(lines: list[tuple[int, str]], label: str, options: OpenOptions) -> list[CidrRule]:
    """The rules of a table."""
    rules: list[CidrRule] = []
    open_ifs: list[tuple[int, int]] = []
    for line, text in lines:
        try:
            rule = _parse_line(text, bool(open_ifs))
        except (BadRule, BadNetwork) as err:
            options.warn(f"{label}, line {line}: {err}: skipping this rule")
            continue
        if rule is None:
            number, _ = open_ifs.pop()
            old = rules[number]
            rules[number] = CidrRule(old.network, old.negated, None, len(rules))
            continue
        if rule.result is None:
            open_ifs.append((len(rules), line))
        rules.append(rule)
    for number, line in open_ifs:
        options.warn(f"{label}, line {line}: IF has no matching ENDIF")
        old = rules[number]
        rules[number] = CidrRule(old.network, old.negated, None, len(rules))
    return rules


def _parse_line(text: str, inside_if: bool) -> CidrRule | None:
    if text[:5].lower() == "endif" and not text[5:6].isalnum():
        if text[5:].strip(BLANK):
            raise BadRule("garbage after ENDIF")
        if not inside_if:
            raise BadRule("ENDIF without IF")
        return None
    is_if = text[:2].lower() == "if" and not text[2:3].isalnum()
    rest = text[2:].strip(BLANK) if is_if else text
    negated = False
    while rest[:1] == "!":
        negated = not negated
        rest = rest[1:].lstrip(BLANK)
    if is_if:
        return CidrRule(parse_network(rest), negated, None, 0)
    parts = rest.split(None, 1)
    if len(parts) < 2:
        raise BadRule("no lookup result" if parts else "no address pattern")
    return CidrRule(parse_network(parts[0]), negated, parts[1], 0)


class CidrTable:
    """cidr:"""

    is_pattern = True

    def __init__(self, source: str, options: OpenOptions) -> None:
        """``source``: file name or { {rule}, ... }. Raises TableError."""
        self.name = f"cidr:{source}"
        self._source = RuleSource(
            "cidr", source, options, lambda lines: parse_cidr(lines, f"cidr map {source}", options)
        )
        self._closed = False

    async def lookup(self, key: str) -> str | None:
        """The result of the first rule that matches the address ``key``; None for what is not an address."""
        if self._closed:
            raise LookupFailed(self.name, "the table is closed")
        rules = self._source.rules()
        number = address_number(key)
        if number is None:
            return None
        size, address = number
        at = 0
        while at < len(rules):
            rule = rules[at]
            matched = rule.network.contains(size, address) != rule.negated
            # "!" speaks about addresses of the same family only.
            if matched and (not rule.negated or rule.network.size_bytes == size):
                if rule.result is not None:
                    return rule.result
            elif rule.result is None:
                at = rule.skip_to
                continue
            at += 1
        return None

    def close(self) -> None:
        """Answer no more."""
        self._closed = True
