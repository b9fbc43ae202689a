"""The resolver of a worker: DNS answers and host addresses, cached, in the words of Postfix.

Owns the cache, the hosts file and resolv.conf as read. Source: man 5 postconf (smtp_host_lookup,
smtp_dns_resolver_options), RFC 2308 (negative answers), RFC 7505 (null MX). Invariants: no exception for
anything a server says, an Answer instead; equal questions in flight are asked once; after ``preload`` no file
needs to be reachable (files that changed are read again where they can be, the last text is kept where they
cannot).
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_address

from estafeta.dns import exchange
from estafeta.dns.answer import (
    MAX_ALIASES,
    TRY_AGAIN,
    Addresses,
    Answer,
    Outcome,
    failure_reason,
    judge,
    malformed_reason,
    native_error,
    to_ascii,
)
from estafeta.dns.cache import TtlCache
from estafeta.dns.client_name import ClientName, find_client_name
from estafeta.dns.hosts import HostsFile, parse_hosts
from estafeta.dns.resolvconf import ResolvConf, parse_resolv_conf
from estafeta.dns.wire import RRType, WireError

_POSITIVE_TTL_CEILING_S = 600.0
_NEGATIVE_TTL_CEILING_S = 60.0
_FILES_RECHECK_S = 15.0


class Resolver:
    """Asynchronous stub resolver; one per worker process, used from one event loop."""

    def __init__(
        self,
        resolv_conf: str = "/etc/resolv.conf",
        hosts_file: str = "/etc/hosts",
        *,
        port: int = 53,
        clock: Callable[[], float] = time.monotonic,
        hostname: str | None = None,
        timeout_s: int | None = None,
    ) -> None:
        """``port`` is the nameservers' port; ``timeout_s`` overrides that of resolv.conf (both for tests)."""
        self._resolv_conf = _WatchedFile(resolv_conf)
        self._hosts_file = _WatchedFile(hosts_file)
        self._port = port
        self._clock = clock
        self._hostname = socket.gethostname() if hostname is None else hostname
        self._timeout_s = timeout_s
        self._conf = ResolvConf()
        self._hosts = HostsFile()
        self._checked_at: float | None = None
        self._turn = 0
        self._cache: TtlCache[tuple[str, int, bool], Answer] = TtlCache(clock)
        self._asking: dict[tuple[str, int, bool], asyncio.Task[Answer]] = {}

    def preload(self) -> None:
        """Read the files and load what would load lazily; call it before entering a jail."""
        to_ascii("ñ.example")
        random.getrandbits(1)
        self._checked_at = None
        self._refresh()

    def close(self) -> None:
        """Give up what is still being asked and forget the cache."""
        for task in list(self._asking.values()):
            task.cancel()
        self._cache.clear()

    def _refresh(self) -> None:
        now = self._clock()
        if self._checked_at is not None and now - self._checked_at < _FILES_RECHECK_S:
            return
        self._checked_at = now
        text = self._resolv_conf.changed_text()
        if text is not None:
            conf = parse_resolv_conf(text, self._hostname)
            self._conf = conf if self._timeout_s is None else replace(conf, timeout_s=self._timeout_s)
        text = self._hosts_file.changed_text()
        if text is not None:
            self._hosts = parse_hosts(text)

    # -- DNS -----------------------------------------------------------------------------------------------

    async def mx(self, name: str, *, dnssec: bool = False) -> Answer:
        """Mail exchangers; a null MX is one record with an empty value."""
        return await self.query(name, RRType.MX, dnssec=dnssec)

    async def a(self, name: str, *, dnssec: bool = False) -> Answer:
        """IPv4 addresses from DNS alone."""
        return await self.query(name, RRType.A, dnssec=dnssec)

    async def aaaa(self, name: str, *, dnssec: bool = False) -> Answer:
        """IPv6 addresses from DNS alone."""
        return await self.query(name, RRType.AAAA, dnssec=dnssec)

    async def txt(self, name: str) -> Answer:
        """TXT records; the strings of one record are joined in its value."""
        return await self.query(name, RRType.TXT)

    async def ptr(self, ip: str) -> Answer:
        """Names of a numeric address, from DNS alone."""
        return await self.query(ip_address(ip).reverse_pointer, RRType.PTR)

    async def query(
        self,
        name: str,
        rtype: int,
        *,
        dnssec: bool = False,
        append_default: bool = False,
        search: bool = False,
    ) -> Answer:
        """Look up records of ``rtype``. ``append_default``, ``search``: RES_DEFNAMES, RES_DNSRCH of
        res_init(3).
        """
        self._refresh()
        first: Answer | None = None
        for candidate in self._conf.candidates(name, append_default=append_default, search=search):
            answer = await self._follow(candidate, rtype, dnssec)
            if answer.outcome not in (Outcome.NXDOMAIN, Outcome.NODATA):
                return answer
            if first is None or (first.outcome is Outcome.NXDOMAIN and answer.outcome is Outcome.NODATA):
                first = answer
        assert first is not None
        return first

    async def _follow(self, name: str, rtype: int, dnssec: bool) -> Answer:
        """Ask, and ask on where a server gave an alias without its end."""
        secure = True
        asked = name
        for _ in range(MAX_ALIASES):
            answer = await self._one(asked, rtype, dnssec)
            secure = secure and answer.secure
            if answer.outcome is not Outcome.NODATA or answer.name.lower() == asked.lower():
                return answer if answer.secure == secure else replace(answer, secure=secure)
            asked = answer.name
        return Answer(Outcome.INVALID, reason=malformed_reason(name, rtype), name=name)

    async def _one(self, name: str, rtype: int, dnssec: bool) -> Answer:
        key = (name.lower(), rtype, dnssec)
        cached = self._cache.get(key)
        if cached is not None:
            return cached
        task = self._asking.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask(name, rtype, dnssec))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        # A caller that is cancelled must not take the answer away from the others.
        return await asyncio.shield(task)

    async def _ask(self, name: str, rtype: int, dnssec: bool) -> Answer:
        conf = self._conf
        first = 0
        if conf.rotate:
            first = self._turn = self._turn + 1
        try:
            response = await exchange.ask(conf, self._port, to_ascii(name), rtype, dnssec=dnssec, first=first)
        except WireError:
            reason = f"Name service error for {name}: invalid host or domain name"
            return Answer(Outcome.INVALID, reason=reason, name=name)
        except exchange.NoAnswer:
            return Answer(Outcome.FAIL, reason=failure_reason(name, rtype, TRY_AGAIN), name=name)
        answer = judge(name, rtype, dnssec, response)
        if answer.outcome is Outcome.OK:
            self._cache.put((name.lower(), rtype, dnssec), answer, min(answer.ttl_s, _POSITIVE_TTL_CEILING_S))
        elif answer.outcome in (Outcome.NXDOMAIN, Outcome.NODATA):
            self._cache.put((name.lower(), rtype, dnssec), answer, min(answer.ttl_s, _NEGATIVE_TTL_CEILING_S))
        return answer

    # -- hosts ---------------------------------------------------------------------------------------------

    async def client_name(self, ip: str) -> ClientName:
        """Return the name of the client at ``ip``, confirmed by a forward look-up."""
        return await find_client_name(self, ip)

    def hosts_name(self, ip: str) -> str | None:
        """Return the name that the hosts file gives an address."""
        self._refresh()
        return self._hosts.reverse(str(ip_address(ip)))

    async def addresses(
        self,
        name: str,
        families: Sequence[str] = ("ipv4", "ipv6"),
        *,
        lookup: Sequence[str] = ("native",),
        dnssec: bool = False,
        append_default: bool = False,
        search: bool = False,
    ) -> Addresses:
        """Return the addresses of a host or of a numeric address itself.

        ``lookup`` is smtp_host_lookup: ``dns`` asks DNS alone, ``native`` the hosts file and then DNS with
        the search list; both: DNS first, native for what it does not have. ``families`` is inet_protocols
        expanded, in the order of preference.
        """
        numeric = _numeric(name)
        if numeric is not None:
            family = "ipv6" if ":" in numeric else "ipv4"
            if family in families:
                return Addresses(Outcome.OK, (numeric,), name=numeric)
            return _native_failure(name, Outcome.NODATA)
        found = _native_failure(name, Outcome.NXDOMAIN)
        if "dns" in lookup:
            found = await self._dns_addresses(name, families, dnssec, append_default, search)
            if found.outcome is Outcome.OK or (dnssec and found.outcome is Outcome.FAIL):
                return found
        if "native" in lookup:
            native = await self._native_addresses(name, families)
            if native.outcome is Outcome.OK or found.outcome is not Outcome.FAIL:
                return native
        return found

    async def _dns_addresses(
        self, name: str, families: Sequence[str], dnssec: bool, append_default: bool, search: bool
    ) -> Addresses:
        types = [RRType.AAAA if family == "ipv6" else RRType.A for family in families]
        if len(types) > 1 and not self.has_addresses(name, families, dnssec=dnssec):
            answers = await asyncio.gather(
                *(self.query(name, t, dnssec=dnssec, append_default=append_default, search=search) for t in types)
            )
        else:
            answers = [
                await self.query(name, t, dnssec=dnssec, append_default=append_default, search=search) for t in types
            ]
        good = [answer for answer in answers if answer.outcome is Outcome.OK]
        if good:
            return Addresses(
                Outcome.OK,
                tuple(record.value for answer in good for record in answer.records),
                secure=all(answer.secure for answer in good),
                name=good[0].name,
            )
        # A temporary failure of any family rules; among equals the last family speaks.
        failed = [answer for answer in answers if answer.outcome is Outcome.FAIL]
        worst = failed[-1] if failed else answers[-1]
        return Addresses(worst.outcome, reason=worst.reason, name=name)

    def has_addresses(self, name: str, families: Sequence[str], *, dnssec: bool = False) -> bool:
        """Whether DNS answers for the addresses of ``name`` are all cached, so that asking does not wait."""
        key = name.lower()
        get = self._cache.get
        return all(get((key, RRType.AAAA if family == "ipv6" else RRType.A, dnssec)) is not None for family in families)

    async def _native_addresses(self, name: str, families: Sequence[str]) -> Addresses:
        self._refresh()
        listed = tuple(
            address
            for family in families
            for address in self._hosts.lookup(name)
            if (":" in address) == (family == "ipv6")
        )
        if listed:
            return Addresses(Outcome.OK, listed, name=name)
        found = await self._dns_addresses(name, families, False, True, True)
        if found.outcome is Outcome.OK:
            return found
        return _native_failure(name, found.outcome)


def _native_failure(name: str, outcome: Outcome) -> Addresses:
    return Addresses(outcome, reason=f"unable to look up host {name}: {native_error(outcome)}", name=name)


def _numeric(name: str) -> str | None:
    if ":" not in name and not name[-1:].isdigit():
        return None
    try:
        return str(ip_address(name))
    except ValueError:
        return None


class _WatchedFile:
    """A small text file that is read again when it changed, and kept when it is out of reach."""

    __slots__ = ("_path", "_seen")

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    def changed_text(self) -> str | None:
        """Return the text if it is new since the last call, else None."""
        try:
            status = os.stat(self._path)
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen == self._seen:
                return None
            with open(self._path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read(1 << 20)
        except OSError:
            return None
        self._seen = seen
        return text
