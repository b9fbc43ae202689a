"""check_*_{a,mx,ns}_access: the table is asked for the hosts behind a domain.

Source: postconf(5) check_sender_mx_access and its kind. A result of OK is ignored; a failed look-up is a warning and no opinion,
since the domain's owner could make it fail.
"""

from __future__ import annotations

from collections.abc import Callable

from estafeta.daemons.smtpd.access.generic import Maker
from estafeta.daemons.smtpd.access.table import NOTHING, Found, TableChecks, known
from estafeta.daemons.smtpd.access.tools import Tools
from estafeta.daemons.smtpd.access.verdict import Check, Facts, Result, Scene, domain_of, is_numeric, literal_address, shown
from estafeta.dns.answer import Outcome, native_error
from estafeta.tables.maps import Maps

# (facts) -> the domain to look at, how a refusal shows it, its kind
Subject = Callable[[Facts], tuple[str, str, str] | None]


def _client(facts: Facts) -> tuple[str, str, str] | None:
    if facts.client_name == "unknown":
        return None
    return facts.client_name, f"{facts.client_name}[{facts.client_address}]", "Client host"


def _reverse(facts: Facts) -> tuple[str, str, str] | None:
    if facts.reverse_name == "unknown":
        return None
    return facts.reverse_name, facts.reverse_name, "Unverified Client host"


def _helo(facts: Facts) -> tuple[str, str, str] | None:
    return (facts.helo, facts.helo, "Helo command") if facts.helo else None


def _sender(facts: Facts) -> tuple[str, str, str] | None:
    return (domain_of(facts.sender), shown(facts.sender), "Sender address") if facts.sender else None


def _recipient(facts: Facts) -> tuple[str, str, str] | None:
    return (domain_of(facts.recipient), shown(facts.recipient), "Recipient address") if facts.recipient else None


_SUBJECTS: dict[str, Subject] = {
    "client": _client,
    "reverse_client_hostname": _reverse,
    "helo": _helo,
    "sender": _sender,
    "recipient": _recipient,
}


class ServerChecks:
    """See the module."""

    def __init__(self, tools: Tools, tables: TableChecks) -> None:
        self._tools = tools
        self._tables = tables
        self.makers: dict[str, Maker] = {
            f"check_{who}_{kind}_access": self._maker(f"check_{who}_{kind}_access", subject, kind)
            for who, subject in _SUBJECTS.items()
            for kind in ("a", "mx", "ns")
        }

    def _maker(self, restriction: str, subject: Subject, kind: str) -> Maker:
        def make(spec: str) -> Check:
            maps = self._tools.maps(spec)

            async def check(scene: Scene) -> Result:
                found = subject(scene.facts)
                if found is None:
                    return None
                domain, name, what = found
                about = scene.about(name, what)
                if not domain:
                    return None
                result = known(await self._look(about, maps, domain.lower(), kind))
                return self._tables.never_ok(restriction, name, result)

            return check

        return make

    async def _look(self, scene: Scene, maps: Maps, domain: str, kind: str) -> Found:
        literal = literal_address(domain) or (domain if is_numeric(domain) else "")
        if literal:
            return NOTHING if kind == "ns" else await self._tables.address(scene, maps, literal)
        if domain.startswith("["):
            return NOTHING
        for host in await self._hosts(scene, domain, kind):
            found: Found = NOTHING
            if kind != "a":
                found = await self._tables.domain(scene, maps, host)
            if found is NOTHING:
                found = await self._addresses(scene, maps, host, domain, kind)
            if found is not NOTHING:
                return found
        return NOTHING

    async def _addresses(self, scene: Scene, maps: Maps, host: str, domain: str, kind: str) -> Found:
        addresses = await self._tools.dns().addresses(host, lookup=("dns",))
        if addresses.outcome is not Outcome.OK:
            if kind != "a":
                subject = f"{scene.kind} {scene.name}"
                self._tools.warn(f"Unable to look up {kind.upper()} host {host} for {subject}: {native_error(addresses.outcome)}")
            return NOTHING
        for address in addresses.addresses:
            found = await self._tables.address(scene, maps, address)
            if found is not NOTHING:
                return found
        return NOTHING

    async def _hosts(self, scene: Scene, domain: str, kind: str) -> list[str]:
        """The hosts of a domain in the order in which they are looked at."""
        if kind == "a":
            return [domain]
        resolver = self._tools.dns()
        if kind == "mx":
            answer = await resolver.mx(domain)
            if answer.outcome in (Outcome.NXDOMAIN, Outcome.NODATA):
                return [domain]
            if answer.outcome is not Outcome.OK:
                self._tools.warn(f"Unable to look up MX host for {domain}: {_why(answer.outcome)}")
                return []
            return [r.value for r in sorted(answer.records, key=lambda record: record.preference) if r.value]
        name = domain
        while True:
            answer = await resolver.query(name, 2)
            if answer.outcome is Outcome.OK:
                return [record.value for record in answer.records if record.value]
            parent = name.partition(".")[2]
            if answer.outcome not in (Outcome.NXDOMAIN, Outcome.NODATA) or "." not in parent:
                what = domain if answer.outcome is Outcome.FAIL else scene.name
                self._tools.warn(f"Unable to look up NS host for {what}: {_why(answer.outcome)}")
                return []
            name = parent


def _why(outcome: Outcome) -> str:
    return {
        Outcome.NXDOMAIN: "Host not found",
        Outcome.NODATA: "Host found but no data record of requested type",
        Outcome.FAIL: "Host not found, try again",
    }.get(outcome, "Malformed or unexpected name server reply")
