"""From a next hop to the list of (host, address, port) to try, or the reason why there is none.

Source: RFC 5321 section 5.1, RFC 7505 (null MX), man 5 postconf (relayhost, smtp_host_lookup,
smtp_address_preference, smtp_mx_address_limit, smtp_balance_inet_protocols, ignore_mx_lookup_error,
smtp_defer_if_no_mx_address_found); texts and status codes as observed from smtp(8). Invariants: hosts of
equal or worse preference than this host are never used; the same random source gives the same order; only a
destination on the standard SMTP port can loop back.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from estafeta.dns.answer import Addresses, Outcome, malformed_reason, to_ascii
from estafeta.dns.hostname import looks_numeric, valid_hostname
from estafeta.dns.resolver import Resolver
from estafeta.dns.wire import Record, RRType, WireError

SMTP_PORT = 25


@dataclass(frozen=True, slots=True)
class Target:
    """One address to connect to. ``preference`` is that of the MX record, 0 without one."""

    host: str
    address: str
    port: int
    preference: int = 0
    secure: bool = False


@dataclass(frozen=True, slots=True)
class RouteFailure:
    """Why there is nothing to connect to. ``warnings`` are log lines beside the failure."""

    dsn: str
    text: str
    temporary: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RouteOptions:
    """The parameters of one SMTP client that decide about hosts; names as in main.cf.

    ``own_addresses`` are the numeric addresses of inet_interfaces and proxy_interfaces. ``families`` is
    inet_protocols expanded, in the order of the look-ups.
    """

    families: tuple[str, ...] = ("ipv4", "ipv6")
    host_lookup: tuple[str, ...] = ("dns",)
    address_preference: str = "any"
    randomize_addresses: bool = True
    mx_address_limit: int = 5
    balance_inet_protocols: bool = True
    ignore_mx_lookup_error: bool = False
    defer_if_no_mx_address_found: bool = False
    dnssec: bool = False
    append_default: bool = False
    search: bool = False
    own_addresses: frozenset[str] = frozenset()


class BadDestination(ValueError):
    """The text of a next hop is no destination; the message is the log text."""


def parse_nexthop(nexthop: str, default_port: int) -> tuple[str, int, bool]:
    """Split ``host``, ``host:port``, ``[host]``, ``[host]:port``; return host, port and whether brackets
    forbid MX.

    Raises BadDestination.
    """
    if nexthop.startswith("["):
        host, bracket, rest = nexthop[1:].partition("]")
        if not bracket:
            raise BadDestination(f'missing "]" in server description: {nexthop}')
        if rest and not rest.startswith(":"):
            raise BadDestination(f'garbage after "]" in server description: {nexthop}')
        port, literal = rest[1:], True
    elif nexthop.count(":") > 1:
        host, port, literal = nexthop, "", False
    else:
        host, _, port = nexthop.partition(":")
        literal = False
    if host[:5].lower() == "ipv6:":
        host = host[5:]
    if not _is_address(host):
        try:
            ascii_host = to_ascii(host)
        except WireError:
            ascii_host = ""
        if not valid_hostname(ascii_host.removesuffix(".")):
            raise BadDestination(f"valid hostname or network address required in server description: {nexthop}")
        host = ascii_host
    return host, _port(port, default_port, nexthop), literal


def _port(text: str, default_port: int, nexthop: str) -> int:
    if not text:
        return default_port
    if text.isascii() and text.isdigit():
        if len(text) > 5 or not 0 < int(text) < 65536:
            raise BadDestination(f"bad network port: {text} for destination: {nexthop}")
        return int(text)
    port = _service_port(text)
    if port is None:
        raise BadDestination(f"unknown service: {text}/tcp")
    return port


@lru_cache(maxsize=64)
def _service_port(name: str) -> int | None:
    # The usual names work without /etc/services, which a jail may not have.
    known = {"smtp": 25, "submission": 587, "submissions": 465, "smtps": 465, "lmtp": 24}.get(name)
    if known is not None:
        return known
    try:
        return socket.getservbyname(name, "tcp")
    except OSError:
        return None


def _is_address(text: str) -> bool:
    if ":" not in text and not looks_numeric(text):
        return False
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


async def route(
    resolver: Resolver,
    nexthop: str,
    default_port: int,
    *,
    lookup_mx: bool = True,
    options: RouteOptions | None = None,
    rng: random.Random | None = None,
) -> list[Target] | RouteFailure:
    """Return the targets for ``nexthop`` in the order to try them (never an empty list), or why there are
    none.

    ``lookup_mx`` is false for LMTP and where DNS is disabled; brackets and addresses forbid it anyway.
    """
    options = options or RouteOptions()
    rng = rng or random.Random()
    try:
        host, port, literal = parse_nexthop(nexthop, default_port)
    except BadDestination as error:
        return RouteFailure("4.3.5", str(error), temporary=True)
    detect_loop = port == SMTP_PORT and bool(options.own_addresses)
    if literal or not lookup_mx or _is_address(host):
        found = await _host_targets(resolver, host, port, options)
    else:
        found = await _mx_targets(resolver, host, port, options, detect_loop)
    if isinstance(found, RouteFailure):
        return found
    if detect_loop and any(target.preference == 0 and _is_own(target, options.own_addresses) for target in found):
        # What an MX look-up gave was cut at this host already.
        return RouteFailure("5.4.6", f"mail for {host} loops back to myself", temporary=False)
    return _limited(_ordered(found, options, rng), options)


async def _host_targets(resolver: Resolver, host: str, port: int, options: RouteOptions) -> list[Target] | RouteFailure:
    found = await _addresses(resolver, host, options)
    if found.outcome is Outcome.OK:
        return [Target(host, address, port, 0, found.secure) for address in found.addresses]
    dsn = _status(found, native=_was_native(found))
    return RouteFailure(dsn, found.reason, temporary=dsn.startswith("4"))


async def _addresses(resolver: Resolver, host: str, options: RouteOptions) -> Addresses:
    if _is_address(host) and ("ipv6" if ":" in host else "ipv4") not in options.families:
        reason = f"Name service error for {host}: invalid host or domain name"
        return Addresses(Outcome.INVALID, reason=reason, name=host)
    return await resolver.addresses(
        host,
        options.families,
        lookup=options.host_lookup,
        dnssec=options.dnssec,
        append_default=options.append_default,
        search=options.search,
    )


def _was_native(found: Addresses) -> bool:
    return found.reason.startswith("unable to look up host ")


def _status(found: Addresses, *, native: bool) -> str:
    """Return the enhanced status of a host that was not found."""
    if native:
        return {Outcome.FAIL: "4.4.4", Outcome.NODATA: "5.3.0", Outcome.BROKEN: "5.3.0"}.get(found.outcome, "5.4.4")
    return {Outcome.FAIL: "4.4.3", Outcome.BROKEN: "5.4.3"}.get(found.outcome, "5.4.4")


async def _mx_targets(
    resolver: Resolver, domain: str, port: int, options: RouteOptions, detect_loop: bool
) -> list[Target] | RouteFailure:
    answer = await resolver.query(
        domain,
        RRType.MX,
        dnssec=options.dnssec,
        append_default=options.append_default,
        search=options.search,
    )
    if answer.outcome in (Outcome.NXDOMAIN, Outcome.NODATA) or (
        answer.outcome is Outcome.FAIL and options.ignore_mx_lookup_error
    ):
        return await _host_targets(resolver, domain, port, options)
    if answer.outcome is Outcome.FAIL:
        return RouteFailure("4.4.3", answer.reason, temporary=True)
    if answer.outcome is not Outcome.OK:
        dsn = "5.4.3" if answer.outcome is Outcome.BROKEN else "5.4.4"
        return RouteFailure(dsn, answer.reason, temporary=False)
    if any(not record.value for record in answer.records):
        return RouteFailure("5.1.0", f"Domain {domain} does not accept mail (nullMX)", temporary=False)
    usable, warnings = _usable(domain, answer.records)
    if not usable:
        return RouteFailure("5.4.4", malformed_reason(domain, RRType.MX), temporary=False, warnings=warnings)
    return await _mx_addresses(resolver, domain, port, options, detect_loop, usable, warnings)


def _usable(domain: str, records: Sequence[Record]) -> tuple[list[Record], tuple[str, ...]]:
    """Sort the records by preference; leave out those that name no host, with a warning for each."""
    usable: list[Record] = []
    warnings: list[str] = []
    for record in sorted(records, key=lambda record: record.preference):
        if looks_numeric(record.value) and _is_address(record.value):
            warnings.append(f"numeric domain name in resource data of MX record for {domain}: {record.value}")
        elif not valid_hostname(record.value):
            warnings.append(f"malformed domain name in resource data of MX record for {domain}: {record.value}")
            continue
        usable.append(record)
    return usable, tuple(warnings)


async def _mx_addresses(
    resolver: Resolver,
    domain: str,
    port: int,
    options: RouteOptions,
    detect_loop: bool,
    records: Sequence[Record],
    warnings: tuple[str, ...],
) -> list[Target] | RouteFailure:
    if all(resolver.has_addresses(record.value, options.families, dnssec=options.dnssec) for record in records[1:]):
        # Nothing waits, or the first alone: no tasks are needed.
        found = [await _addresses(resolver, record.value, options) for record in records]
    else:
        found = list(await asyncio.gather(*(_addresses(resolver, record.value, options) for record in records)))
    targets: list[Target] = []
    last_failure: Addresses | None = None
    temporary = options.defer_if_no_mx_address_found
    for record, addresses in zip(records, found, strict=True):
        if addresses.outcome is Outcome.OK:
            targets += [
                Target(record.value, address, port, record.preference, addresses.secure)
                for address in addresses.addresses
            ]
        else:
            last_failure = addresses
            temporary = temporary or addresses.outcome is Outcome.FAIL
    if not targets:
        assert last_failure is not None
        warnings += (f"no MX host for {domain} has a valid address record",)
        dsn = _status(last_failure, native=_was_native(last_failure))
        # The class is that of the whole search, the detail that of the last host.
        dsn = ("4" if temporary else "5") + dsn[1:]
        return RouteFailure(dsn, last_failure.reason, temporary, warnings)
    if detect_loop:
        own = [target.preference for target in targets if _is_own(target, options.own_addresses)]
        if own:
            limit = min(own)
            if limit <= records[0].preference:
                return RouteFailure("5.4.6", f"mail for {domain} loops back to myself", temporary=False)
            targets = [target for target in targets if target.preference < limit]
            if not targets:
                text = f"unable to find primary relay for {domain}"
                return RouteFailure("4.4.4", text, temporary=True, warnings=warnings)
    return targets


def _is_own(target: Target, own_addresses: Collection[str]) -> bool:
    if target.address in own_addresses:
        return True
    if ":" in target.address:
        mapped = IPv6Address(target.address).ipv4_mapped
        return mapped is not None and str(mapped) in own_addresses
    return False


def _ordered(targets: list[Target], options: RouteOptions, rng: random.Random) -> list[Target]:
    """Order by preference; within one, at random (smtp_randomize_addresses), the preferred family first."""
    targets = list(targets)
    if options.randomize_addresses:
        rng.shuffle(targets)
    first = {"ipv4": False, "ipv6": True}.get(options.address_preference)
    if first is None:
        return sorted(targets, key=lambda target: target.preference)
    return sorted(targets, key=lambda target: (target.preference, (":" in target.address) is not first))


def _limited(targets: list[Target], options: RouteOptions) -> list[Target]:
    """Keep at most smtp_mx_address_limit targets, of both families where both are to be had."""
    limit = options.mx_address_limit
    if limit <= 0 or len(targets) <= limit:
        return targets
    if not options.balance_inet_protocols or limit < 2:
        return targets[:limit]
    v6 = [index for index, target in enumerate(targets) if ":" in target.address]
    v4 = [index for index, target in enumerate(targets) if ":" not in target.address]
    reserve = limit // 2
    kept = set(v6[:reserve]) | set(v4[:reserve])
    for index in range(len(targets)):
        if len(kept) >= limit:
            break
        kept.add(index)
    return [targets[index] for index in sorted(kept)]
