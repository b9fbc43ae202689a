"""Restrictions that ask DNS whether a name can get mail: HELO names, sender and recipient domains.

Source: postconf(5) reject_unknown_helo_hostname, reject_unknown_sender_domain, reject_unknown_recipient_domain, RFC 7505.
Invariant: a name server that does not answer leads to unknown_*_tempfail_action ($reject_tempfail_action), never to a
permanent refusal.
"""

from __future__ import annotations

from estafeta.daemons.smtpd.access.tools import Tools
from estafeta.daemons.smtpd.access.verdict import Check, Result, Scene, domain_of, shown
from estafeta.dns.answer import Outcome
from estafeta.dns.wire import RRType
from estafeta.ipc.messages import AddressClass
from estafeta.tables.table import fold_key

_FINAL = (AddressClass.LOCAL, AddressClass.VIRTUAL_ALIAS, AddressClass.VIRTUAL_MAILBOX)
NULL_MX = "null mx"


class Domains:
    """See the module."""

    def __init__(self, tools: Tools) -> None:
        config = tools.config
        self._tools = tools
        self._hostname_code = config.int("unknown_hostname_reject_code")
        self._address_code = config.int("unknown_address_reject_code")
        self._helo_action = config.get("unknown_helo_hostname_tempfail_action")
        self._address_action = config.get("unknown_address_tempfail_action")
        self.checks: dict[str, Check] = {
            "reject_unknown_helo_hostname": self._helo,
            "reject_unknown_sender_domain": self._sender,
            "reject_unknown_recipient_domain": self._recipient,
        }

    async def _lookup(self, name: str) -> Outcome | str:
        """MX, then A, then AAAA: the first that exists, a failure, or what the last said."""
        resolver = self._tools.dns()
        failed = False
        for rtype in (RRType.MX, RRType.A, RRType.AAAA):
            answer = await resolver.query(fold_key(name), rtype)
            if answer.outcome is Outcome.OK:
                if rtype == RRType.MX and not any(record.value for record in answer.records):
                    return NULL_MX
                return Outcome.OK
            if answer.outcome is Outcome.INVALID:
                return Outcome.INVALID
            failed = failed or answer.outcome is Outcome.FAIL
        return Outcome.FAIL if failed else Outcome.NXDOMAIN

    async def _helo(self, scene: Scene) -> Result:
        helo = scene.facts.helo
        if not helo or helo.startswith("["):
            return None
        found = await self._lookup(helo)
        if found is Outcome.OK or found == NULL_MX:
            return None
        about = scene.about(helo, "Helo command")
        if found is Outcome.FAIL:
            return scene.tempfail(self._helo_action, about.refuse(450, "4.7.1", "Host not found"))
        return about.refuse(self._hostname_code, "4.7.1", "Host not found")

    async def _address(self, scene: Scene, address: bytes, kind: str, dsn: str, null_mx: tuple[int, str]) -> Result:
        route = await self._tools.resolve(address)
        domain = domain_of(route.recipient)
        if not domain or domain.startswith("[") or route.address_class in _FINAL:
            return None
        found = await self._lookup(domain)
        about = scene.about(shown(address), kind)
        if found is Outcome.OK:
            return None
        if found == NULL_MX:
            return about.refuse(*null_mx, f"Domain {domain} does not accept mail (nullMX)")
        if found is Outcome.FAIL:
            return scene.tempfail(self._address_action, about.refuse(450, dsn, "Domain not found"))
        text = "Malformed DNS server reply" if found is Outcome.INVALID else "Domain not found"
        return about.refuse(self._address_code, dsn, text)

    async def _sender(self, scene: Scene) -> Result:
        sender = scene.facts.sender
        return await self._address(scene, sender, "Sender address", "4.1.8", (550, "5.7.27")) if sender else None

    async def _recipient(self, scene: Scene) -> Result:
        recipient = scene.facts.recipient
        if not recipient:
            return None
        return await self._address(scene, recipient, "Recipient address", "4.1.2", (556, "5.1.10"))
