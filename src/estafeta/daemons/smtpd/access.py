"""Restriction lists: walked in order, a pure function of the session's facts and of look-ups.

Source: postconf(5) smtpd_*_restrictions, SMTPD_ACCESS_README. A list that names a restriction that Estafeta does not know is
refused at start; one that is known but not there yet answers 451 4.3.5 and is named by ``postfix check``.
Invariant: a look-up that fails gives a temporary refusal, never a permission and never a permanent refusal.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from estafeta.clients.rewrite import RewriteClient
from estafeta.config.config import Config
from estafeta.config.errors import ConfigError
from estafeta.config.restrictions import PLANNED, WITH_ARGUMENT
from estafeta.daemons.smtpd.unlisted import UnlistedCheck
from estafeta.ipc.channel import ServiceLost
from estafeta.ipc.messages import AddressClass
from estafeta.mail.address import quote_address
from estafeta.mail.text import to_text
from estafeta.tables.match_list import AddressList, DomainList
from estafeta.tables.table import LookupFailed, OpenOptions

STAGES = ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data", "etrn")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A refusal: reply code, enhanced status, text."""

    code: int
    dsn: str
    text: str

    @property
    def reply(self) -> bytes:
        return f"{self.code} {self.dsn} {self.text}".encode("utf-8", "surrogateescape")


@dataclass(slots=True)
class Facts:
    """What the restrictions look at."""

    client_name: str
    client_address: str
    helo: str = ""
    esmtp: bool = False
    sender: bytes | None = None
    recipient: bytes | None = None
    pipelined: bool = False  # the client sent more before it had the answer
    defer_if_permit: Verdict | None = None
    defer_if_reject: Verdict | None = None
    tls: bool = False  # the session is encrypted; the certificate's facts are empty without one
    ccert_trusted: bool = False
    ccert_subject: str = ""
    ccert_issuer: str = ""
    ccert_fingerprint: str = ""  # upper-case hexadecimal with colons
    ccert_pubkey_fingerprint: str = ""


PERMIT = "permit"
Result = Verdict | str | None
Check = Callable[[Facts, str], Awaitable[Result]]

OLD_NAMES = {
    "reject_unknown_address": "reject_unknown_sender_domain",
    "reject_unknown_client": "reject_unknown_client_hostname",
    "reject_unknown_hostname": "reject_unknown_helo_hostname",
    "reject_invalid_hostname": "reject_invalid_helo_hostname",
    "reject_non_fqdn_hostname": "reject_non_fqdn_helo_hostname",
}


class Access:
    """All restriction lists of one smtpd service."""

    def __init__(
        self, config: Config, options: OpenOptions, rewrite: RewriteClient, warn: Callable[[str], None]
    ) -> None:
        self._rewrite = rewrite
        self._warn = warn
        parents = set(config.words("parent_domain_matches_subdomains"))
        self._mynetworks = AddressList(config.get("mynetworks"), options, "mynetworks")
        self._relay_domains = DomainList(
            config.get("relay_domains"), options, "relay_domains", match_parents="relay_domains" in parents
        )
        self.unlisted = UnlistedCheck(config, options, rewrite)
        self._relay_code = config.int("relay_domains_reject_code")
        self._non_fqdn_code = config.int("non_fqdn_reject_code")
        self._invalid_code = config.int("invalid_hostname_reject_code")
        self._reject_code = config.int("reject_code")
        self._defer_code = config.int("defer_code")
        self._checks: dict[str, Check] = {
            "permit": self._permit,
            "reject": self._reject,
            "defer": self._defer,
            "defer_if_permit": self._defer_if_permit,
            "defer_if_reject": self._defer_if_reject,
            "permit_mynetworks": self._permit_mynetworks,
            "permit_sasl_authenticated": self._dunno,
            "permit_auth_destination": self._permit_auth_destination,
            "reject_unauth_destination": self._reject_unauth_destination,
            "defer_unauth_destination": self._defer_unauth_destination,
            "check_relay_domains": self._check_relay_domains,
            "reject_unlisted_recipient": self._reject_unlisted_recipient,
            "reject_unlisted_sender": self._reject_unlisted_sender,
            "reject_unauth_pipelining": self._reject_unauth_pipelining,
            "reject_invalid_helo_hostname": self._reject_invalid_helo,
            "reject_non_fqdn_helo_hostname": self._reject_non_fqdn_helo,
            "reject_non_fqdn_sender": self._reject_non_fqdn_sender,
            "reject_non_fqdn_recipient": self._reject_non_fqdn_recipient,
        }
        classes = set(config.words("smtpd_restriction_classes"))
        self._lists = {
            stage: self._parse(f"smtpd_{stage}_restrictions", config.words(f"smtpd_{stage}_restrictions"), classes)
            for stage in STAGES
        }
        self.planned = sorted({name for entries in self._lists.values() for name, _, _ in entries if name in PLANNED})

    def _parse(self, parameter: str, words: list[str], classes: set[str]) -> list[tuple[str, str, bool]]:
        """(restriction, argument, only warn) in order; raises ConfigError for an unknown name."""
        entries: list[tuple[str, str, bool]] = []
        position = 0
        warn_only = False
        while position < len(words):
            name = words[position]
            position += 1
            if name == "warn_if_reject":
                warn_only = True
                continue
            lower = OLD_NAMES.get(name.lower(), name.lower())  # the start-up check has given the modern form (config/legacy)
            argument = ""
            if lower.startswith(WITH_ARGUMENT) and lower != "check_relay_domains" and position < len(words):
                argument = words[position]
                position += 1
            elif ":" in name or name in classes:
                lower = "check_recipient_access"  # a bare table, or a class: both come with access(5)
                argument = name
            if lower == "sleep" and position < len(words):
                position += 1
                continue
            if lower not in self._checks and lower not in PLANNED:
                raise ConfigError(f'{parameter}: unknown smtpd restriction: "{name}"')
            entries.append((lower, argument, warn_only))
            warn_only = False
        return entries

    def has(self, stage: str) -> bool:
        """True if there is anything to check at ``stage``."""
        return bool(self._lists[stage])

    async def check(self, stage: str, facts: Facts, warned: Callable[[Verdict], None]) -> Verdict | None:
        """Walk one list: a refusal, or None. ``warned`` gets what warn_if_reject would have refused."""
        for name, argument, warn_only in self._lists[stage]:
            try:
                check = self._checks.get(name)
                result: Result
                if check is None:
                    self._warn(f"restriction {name} is not implemented")
                    result = Verdict(451, "4.3.5", "Server configuration error")
                else:
                    result = await check(facts, argument)
            except (LookupFailed, ServiceLost) as error:
                self._warn(f"{name}: {error}")
                address = to_text(facts.recipient or b"")
                result = Verdict(451, "4.3.0", f"<{address}>: Temporary lookup failure")
            if result is None:
                continue
            if result == PERMIT:
                return None
            assert isinstance(result, Verdict)
            if warn_only:
                warned(result)
                continue
            if facts.defer_if_reject is not None and result.code >= 500:
                return facts.defer_if_reject
            return result
        return None

    # -- the restrictions ---------------------------------------------------------------------------------------------

    async def _dunno(self, facts: Facts, argument: str) -> Result:
        return None

    async def _permit(self, facts: Facts, argument: str) -> Result:
        return PERMIT

    def _subject(self, facts: Facts) -> tuple[str, str]:
        if facts.recipient is not None:
            return shown(facts.recipient), "Recipient address"
        if facts.sender is not None:
            return shown(facts.sender), "Sender address"
        if facts.helo:
            return facts.helo, "Helo command"
        return f"{facts.client_name}[{facts.client_address}]", "Client host"

    async def _reject(self, facts: Facts, argument: str) -> Result:
        what, kind = self._subject(facts)
        return Verdict(self._reject_code, "5.7.1", f"<{what}>: {kind} rejected: Access denied")

    async def _defer(self, facts: Facts, argument: str) -> Result:
        what, kind = self._subject(facts)
        return Verdict(self._defer_code, "4.7.1", f"<{what}>: {kind} rejected: Try again later")

    async def _defer_if_permit(self, facts: Facts, argument: str) -> Result:
        what, kind = self._subject(facts)
        facts.defer_if_permit = Verdict(self._defer_code, "4.7.0", f"<{what}>: {kind} rejected: defer_if_permit requested")
        return None

    async def _defer_if_reject(self, facts: Facts, argument: str) -> Result:
        what, kind = self._subject(facts)
        facts.defer_if_reject = Verdict(self._defer_code, "4.7.0", f"<{what}>: {kind} rejected: defer_if_reject requested")
        return None

    async def is_in_mynetworks(self, address: str) -> bool:
        """True for clients that permit_mynetworks lets pass; raises LookupFailed."""
        return await self._mynetworks.match(address)

    async def _permit_mynetworks(self, facts: Facts, argument: str) -> Result:
        return PERMIT if await self._mynetworks.match(facts.client_address) else None

    async def _is_auth_destination(self, facts: Facts) -> bool:
        if not facts.recipient:
            return True
        route = await self._rewrite.resolve(facts.recipient, facts.sender or b"")
        if route.failed:
            raise LookupFailed("trivial-rewrite", route.error)
        local = route.recipient.rpartition(b"@")[0]
        if b"@" in local or ((b"%" in local or b"!" in local) and route.address_class != AddressClass.LOCAL):
            return False  # sender-specified routing: postconf(5) allow_untrusted_routing
        return route.address_class != AddressClass.DEFAULT

    async def _permit_auth_destination(self, facts: Facts, argument: str) -> Result:
        return PERMIT if facts.recipient is not None and await self._is_auth_destination(facts) else None

    async def _reject_unauth_destination(self, facts: Facts, argument: str) -> Result:
        if facts.recipient is None or await self._is_auth_destination(facts):
            return None
        address = shown(facts.recipient)
        return Verdict(self._relay_code, "5.7.1", f"<{address}>: Relay access denied")

    async def _defer_unauth_destination(self, facts: Facts, argument: str) -> Result:
        if facts.recipient is None or await self._is_auth_destination(facts):
            return None
        return Verdict(454, "4.7.1", f"<{shown(facts.recipient)}>: Relay access denied")

    async def _check_relay_domains(self, facts: Facts, argument: str) -> Result:
        if facts.client_name != "unknown" and await self._relay_domains.match(facts.client_name):
            return PERMIT
        if facts.recipient is None or await self._is_auth_destination(facts):
            return PERMIT
        address = shown(facts.recipient)
        # The old restriction says it in other words than reject_unauth_destination.
        return Verdict(self._relay_code, "5.7.1", f"<{address}>: Recipient address rejected: Relay access denied")

    async def _reject_unlisted_recipient(self, facts: Facts, argument: str) -> Result:
        if facts.recipient is None:
            return None
        return await self.refuse_unlisted(facts.recipient, facts.sender or b"", "Recipient")

    async def _reject_unlisted_sender(self, facts: Facts, argument: str) -> Result:
        return await self.refuse_unlisted(facts.sender, b"", "Sender") if facts.sender else None

    async def refuse_unlisted(self, address: bytes, sender: bytes, what: str) -> Verdict | None:
        """A refusal if ``address`` is in a domain whose users are listed and it is not among them."""
        found = await self.unlisted.problem(address, sender)
        if found is None:
            return None
        code, dsn, text = found
        if what == "Sender" and dsn == "5.1.1":
            dsn = "5.1.0"
        return Verdict(code, dsn, f"<{shown(address)}>: {what} address rejected: {text}")

    async def _reject_unauth_pipelining(self, facts: Facts, argument: str) -> Result:
        if not facts.pipelined:
            return None
        what = "DATA"
        return Verdict(503, "5.5.0", f"<{what}>: Data command rejected: Improper use of SMTP command pipelining")

    async def _reject_invalid_helo(self, facts: Facts, argument: str) -> Result:
        if not facts.helo or is_hostname(facts.helo) or facts.helo.startswith("[") or is_numeric(facts.helo):
            return None
        return Verdict(self._invalid_code, "5.5.2", f"<{facts.helo}>: Helo command rejected: Invalid name")

    async def _reject_non_fqdn_helo(self, facts: Facts, argument: str) -> Result:
        if not facts.helo or facts.helo.startswith("[") or (is_hostname(facts.helo) and "." in facts.helo):
            return None
        return Verdict(
            self._non_fqdn_code, "5.5.2", f"<{facts.helo}>: Helo command rejected: need fully-qualified hostname"
        )

    def _non_fqdn(self, address: bytes, what: str) -> Result:
        domain = to_text(address.rpartition(b"@")[2]) if b"@" in address else ""
        if domain.startswith("[") or (is_hostname(domain) and "." in domain):
            return None
        text = f"<{shown(address)}>: {what} address rejected: need fully-qualified address"
        return Verdict(self._non_fqdn_code, "5.5.2", text)

    async def _reject_non_fqdn_sender(self, facts: Facts, argument: str) -> Result:
        return self._non_fqdn(facts.sender, "Sender") if facts.sender else None

    async def _reject_non_fqdn_recipient(self, facts: Facts, argument: str) -> Result:
        return self._non_fqdn(facts.recipient, "Recipient") if facts.recipient else None


_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


def shown(address: bytes) -> str:
    """An address as replies show it: without quotes, control characters blanked."""
    return _UNPRINTABLE.sub(" ", to_text(address))


def logged(address: bytes) -> str:
    """An address in a ``reject:`` line: quoted where it has to be."""
    if address.startswith(b"@"):
        return '""' + to_text(address)
    return to_text(quote_address(address)) if address else ""


def is_hostname(name: str) -> bool:
    """True for syntactically valid host names (labels of letters, digits, hyphens, underscores)."""
    labels = name.rstrip(".").split(".")
    return bool(name) and len(name) <= 255 and all(_is_label(label) for label in labels) and not labels[-1].isdigit()


def is_numeric(name: str) -> bool:
    """True for an IP address without brackets."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, name)
        except (OSError, ValueError):
            continue
        return True
    return False


def _is_label(label: str) -> bool:
    plain = label.replace("-", "").replace("_", "")
    return 0 < len(label) < 64 and not label.startswith("-") and not label.endswith("-") and (plain.isalnum() or not plain)
