"""DNS block and allow lists: reject_rbl_client, reject_rhsbl_*, permit_dnswl_client, permit_rhswl_client, reject_maps_rbl.

Source: postconf(5) reject_rbl_client, default_rbl_reply, rbl_reply_maps, maps_rbl_reject_code. Answers are kept for the session.
Invariant: a list that cannot be asked blocks nobody; one that allows and cannot be asked makes later refusals temporary.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from estafeta.config.errors import ConfigError
from estafeta.config.expand import ExpandError, expand
from estafeta.daemons.smtpd.access.generic import Maker
from estafeta.daemons.smtpd.access.tools import Tools
from estafeta.daemons.smtpd.access.verdict import (
    PERMIT,
    Check,
    Facts,
    Result,
    Scene,
    Verdict,
    domain_of,
    shown,
    split_status,
)
from estafeta.dns.answer import Outcome
from estafeta.tables.maps import Maps
from estafeta.tables.table import LookupFailed

_FIELD = re.compile(r"\[[^\]]*\]|\d+")
_REPLY = re.compile(r"([45]\d\d)\s+")


class BadFilter(ValueError):
    """A pattern behind ``=`` that is none; the argument says why."""


def parse_filter(text: str) -> tuple[tuple[tuple[int, int], ...], ...]:
    """The ranges of each of the four bytes of ``d.d.d.d``; raises BadFilter."""
    fields = []
    rest = text
    for position in range(4):
        found = _FIELD.match(rest)
        if found is None:
            raise BadFilter(f'bad address pattern: "{text}"')
        fields.append(_ranges(found[0], text))
        rest = rest[found.end() :]
        if position < 3:
            if not rest.startswith("."):
                raise BadFilter(f'bad address pattern: "{text}"')
            rest = rest[1:]
    if rest:
        raise BadFilter(f'garbage after the address pattern: "{text}"')
    return tuple(fields)


def _ranges(field: str, whole: str) -> tuple[tuple[int, int], ...]:
    ranges = []
    for part in field.strip("[]").split(";"):
        low, dots, high = part.partition("..")
        if not low.isdigit() or (dots and not high.isdigit()):
            raise BadFilter(f'bad number "{part}" in address pattern "{whole}"')
        pair = int(low), int(high or low)
        if not 0 <= pair[0] <= pair[1] <= 255:
            raise BadFilter(f'bad range "{part}" in address pattern "{whole}"')
        ranges.append(pair)
    return tuple(ranges)


def matches(pattern: tuple[tuple[tuple[int, int], ...], ...], address: str) -> bool:
    """Whether an IPv4 address fits a filter."""
    parts = [int(part) for part in address.split(".")]
    return all(any(low <= part <= high for low, high in ranges) for part, ranges in zip(parts, pattern, strict=True))


def reversed_address(address: str) -> str:
    """The name under which an address is listed: bytes (IPv6: nibbles) from the end."""
    return ip_address(address).reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")


@dataclass(frozen=True, slots=True)
class _Listing:
    """What a list says: its A records; failed: it cannot be asked."""

    addresses: tuple[str, ...] = ()
    failed: bool = False


# (facts) -> the name to ask for, what the reply shows, its kind
Subject = Callable[[Facts], tuple[str, str, str] | None]


def _client(facts: Facts) -> tuple[str, str, str] | None:
    return reversed_address(facts.client_address), facts.client_address, "Client host"


def _name(name: str, kind: str) -> tuple[str, str, str] | None:
    return None if not name or name == "unknown" or name.startswith("[") else (name, name, kind)


def _sender(facts: Facts) -> tuple[str, str, str] | None:
    found = _name(domain_of(facts.sender or b""), "Sender address")
    return found and (found[0], shown(facts.sender or b""), found[2])


def _recipient(facts: Facts) -> tuple[str, str, str] | None:
    found = _name(domain_of(facts.recipient or b""), "Recipient address")
    return found and (found[0], shown(facts.recipient or b""), found[2])


_SUBJECTS: dict[str, Subject] = {
    "reject_rbl_client": _client,
    "permit_dnswl_client": _client,
    "reject_rhsbl_client": lambda facts: _name(facts.client_name, "Client host"),
    "permit_rhswl_client": lambda facts: _name(facts.client_name, "Client host"),
    "reject_rhsbl_reverse_client": lambda facts: _name(facts.reverse_name, "Unverified Client host"),
    "reject_rhsbl_helo": lambda facts: _name(facts.helo, "Helo command"),
    "reject_rhsbl_sender": _sender,
    "reject_rhsbl_recipient": _recipient,
}


class Blocklists:
    """See the module."""

    def __init__(self, tools: Tools) -> None:
        config = tools.config
        self._tools = tools
        self._code = config.int("maps_rbl_reject_code")
        self._default_reply = config.raw("default_rbl_reply")
        self._replies = Maps(config.words("rbl_reply_maps"), tools.options, "rbl_reply_maps")
        self._old_domains = config.words("maps_rbl_domains")
        self.makers: dict[str, Maker] = {name: self._maker(name) for name in _SUBJECTS}

    def old(self) -> list[Check]:
        """reject_maps_rbl: every list of maps_rbl_domains."""
        return [self.makers["reject_rbl_client"](domain) for domain in self._old_domains]

    def _maker(self, restriction: str) -> Maker:
        subject = _SUBJECTS[restriction]
        allows = restriction.startswith("permit_")

        def make(argument: str) -> Check:
            domain, equals, pattern = argument.partition("=")
            try:
                wanted = parse_filter(pattern) if equals else None
            except BadFilter as error:
                raise ConfigError(f"{restriction} {argument}: {error}") from None

            async def check(scene: Scene) -> Result:
                found = subject(scene.facts)
                if found is None:
                    return None
                name, what, kind = found
                listing = await self._ask(scene.facts, name, domain)
                if allows:
                    return await self._allow(scene, listing, wanted)
                if not any(wanted is None or matches(wanted, address) for address in listing.addresses):
                    return None
                return await self._refuse(scene, name, domain, what, kind)

            return check

        return make

    async def _allow(
        self, scene: Scene, listing: _Listing, wanted: tuple[tuple[tuple[int, int], ...], ...] | None
    ) -> Result:
        if listing.failed:
            scene.defer_if_reject(
                scene.about(scene.facts.client_address, "Client host").refuse(450, "4.7.1", "Service unavailable")
            )
            return None
        if not any(wanted is None or matches(wanted, address) for address in listing.addresses):
            return None
        facts = scene.facts
        if facts.recipient is not None and not await self._tools.is_auth_destination(facts):
            return None  # postconf(5): never overrides reject_unauth_destination
        return PERMIT

    async def _ask(self, facts: Facts, name: str, domain: str) -> _Listing:
        key = ("dnsbl", f"{name}.{domain}".lower())
        known = facts.memory.get(key)
        if isinstance(known, _Listing):
            return known
        answer = await self._tools.dns().a(key[1])
        if answer.outcome is Outcome.OK:
            listing = _Listing(tuple(record.value for record in answer.records))
        elif answer.outcome in (Outcome.NXDOMAIN, Outcome.NODATA):
            listing = _Listing()
        else:
            self._tools.warn(f"{key[1]}: RBL lookup error: {answer.reason}")
            listing = _Listing(failed=True)
        facts.memory[key] = listing
        return listing

    async def _reason(self, facts: Facts, name: str, domain: str) -> str:
        key = ("dnsbl-txt", f"{name}.{domain}".lower())
        known = facts.memory.get(key)
        if isinstance(known, str):
            return known
        answer = await self._tools.dns().txt(key[1])
        text = answer.records[0].value if answer.outcome is Outcome.OK else ""
        text = "".join(c if " " <= c <= "~" else "?" for c in text)[:500]
        facts.memory[key] = text
        return text

    async def _refuse(self, scene: Scene, name: str, domain: str, what: str, kind: str) -> Verdict:
        facts = scene.facts
        reason = await self._reason(facts, name, domain)
        template = self._default_reply
        if self._replies:
            try:
                template = await self._replies.find(domain) or template
            except LookupFailed as error:
                self._tools.warn(f"rbl_reply_maps: {error}")
        values = {
            "client": f"{facts.client_name}[{facts.client_address}]",
            "client_address": facts.client_address,
            "client_name": facts.client_name,
            "reverse_client_name": facts.reverse_name,
            "helo_name": facts.helo,
            "rbl_class": kind,
            "rbl_code": str(self._code),
            "rbl_domain": domain,
            "rbl_reason": reason,
            "rbl_txt": reason,
            "rbl_what": what,
            "recipient": _or_null(facts.recipient),
            "recipient_domain": domain_of(facts.recipient or b""),
            "recipient_name": _or_null(facts.recipient).rpartition("@")[0] or _or_null(facts.recipient),
            "sender": _or_null(facts.sender),
            "sender_domain": domain_of(facts.sender or b""),
            "sender_name": _or_null(facts.sender).rpartition("@")[0] or _or_null(facts.sender),
        }
        try:
            text = fill(template, values)
        except ExpandError as error:
            self._tools.warn(f"RBL reply for {domain}: {error}")
            text = ""
        found = _REPLY.match(text)
        if found is None:
            self._tools.warn(f"RBL reply for {domain} does not begin with a reply code: {text}")
            code, text = self._code, f"Service unavailable; {kind} [{what}] blocked using {domain}"
        else:
            code, text = int(found[1]), text[found.end() :]
        dsn, text = split_status(text, f"{code // 100}.7.1")
        return Verdict(code, scene.about(what, kind).status(code, dsn), text)


def _or_null(address: bytes | None) -> str:
    return shown(address) if address else "<>" if address is not None else ""


def fill(template: str, values: dict[str, str]) -> str:
    """One level of ``$name`` in all its forms; what a list's owner wrote is never expanded. Raises ExpandError."""
    return expand(template, lambda name: values.get(name, "").replace("$", "$$"))
