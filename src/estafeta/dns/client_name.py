"""The name of an SMTP client: its reverse name, confirmed by a forward look-up.

Source: SMTPD_POLICY_README and man 5 postconf (reject_unknown_client_hostname,
reject_unknown_reverse_client_hostname): a name counts only when it leads back to the address. The hosts file
is asked first, as the system's resolver does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_address
from typing import Protocol

from estafeta.dns.answer import Addresses, Answer, Outcome, native_error
from estafeta.dns.hostname import looks_numeric, valid_hostname

UNKNOWN = "unknown"


class NameStatus(IntEnum):
    """How far a name can be trusted; the first digit is that of a reply code."""

    OK = 2
    TEMPORARY = 4
    PERMANENT = 5
    FORGED = 6


@dataclass(frozen=True, slots=True)
class ClientName:
    """``name`` is confirmed or "unknown"; ``reverse_name`` is what the address says it is, or "unknown".

    ``warning`` is what the server logs about it (None when there is nothing to say).
    """

    name: str
    reverse_name: str
    name_status: NameStatus
    reverse_name_status: NameStatus
    warning: str | None = None


class NameLookups(Protocol):
    """What is needed of a resolver."""

    def hosts_name(self, ip: str) -> str | None:
        """Return the name in the hosts file."""

    async def ptr(self, ip: str) -> Answer:
        """Return the PTR records."""

    async def addresses(self, name: str, families: Sequence[str]) -> Addresses:
        """Return the addresses of a host."""


async def find_client_name(lookups: NameLookups, ip: str) -> ClientName:
    """Look up the client at the numeric address ``ip``."""
    address = str(ip_address(ip))
    reverse = lookups.hosts_name(address)
    if reverse is None:
        answer = await lookups.ptr(address)
        if answer.outcome is not Outcome.OK:
            status = NameStatus.TEMPORARY if answer.outcome is Outcome.FAIL else NameStatus.PERMANENT
            return ClientName(UNKNOWN, UNKNOWN, status, status)
        reverse = answer.records[0].value
    if not valid_hostname(reverse):
        warning = (
            f"numeric hostname: {reverse}"
            if looks_numeric(reverse)
            else f"malformed domain name in PTR record: {reverse!r}"
        )
        return ClientName(UNKNOWN, UNKNOWN, NameStatus.PERMANENT, NameStatus.PERMANENT, warning)
    family = "ipv6" if ":" in address else "ipv4"
    forward = await lookups.addresses(reverse, (family,))
    if forward.outcome is not Outcome.OK:
        status = NameStatus.TEMPORARY if forward.outcome is Outcome.FAIL else NameStatus.PERMANENT
        warning = f"hostname {reverse} does not resolve to address {address}: {native_error(forward.outcome)}"
        return ClientName(UNKNOWN, reverse, status, NameStatus.OK, warning)
    if address not in forward.addresses:
        warning = f"hostname {reverse} does not resolve to address {address}"
        return ClientName(UNKNOWN, reverse, NameStatus.FORGED, NameStatus.OK, warning)
    return ClientName(reverse, reverse, NameStatus.OK, NameStatus.OK)
