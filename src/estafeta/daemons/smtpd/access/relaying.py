"""Whose mail goes where: relay control and listed users.

Source: postconf(5) permit_auth_destination, reject_unauth_destination, permit_mx_backup, reject_unlisted_recipient.
"""

from __future__ import annotations

import asyncio

from estafeta.daemons.smtpd.access.tools import Tools
from estafeta.daemons.smtpd.access.verdict import PERMIT, Check, Facts, Result, Scene, Verdict, domain_of, shown
from estafeta.daemons.smtpd.unlisted import UnlistedCheck
from estafeta.dns.answer import Outcome
from estafeta.service.own_addresses import own_addresses
from estafeta.tables.match_list import AddressList, DomainList


class Relaying:
    """See the module."""

    def __init__(self, tools: Tools) -> None:
        config = tools.config
        parents = set(config.words("parent_domain_matches_subdomains"))
        self._tools = tools
        self.unlisted = UnlistedCheck(config, tools.options, tools.rewrite)
        self._relay_domains = DomainList(
            config.get("relay_domains"), tools.options, "relay_domains", match_parents="relay_domains" in parents
        )
        self._backup_networks = AddressList(
            config.get("permit_mx_backup_networks"), tools.options, "permit_mx_backup_networks"
        )
        self._own = own_addresses(config)
        self._code = config.int("relay_domains_reject_code")
        self.checks: dict[str, Check] = {
            "permit_auth_destination": self._permit_auth_destination,
            "reject_unauth_destination": self._reject_unauth_destination,
            "defer_unauth_destination": self._defer_unauth_destination,
            "check_relay_domains": self._check_relay_domains,
            "permit_mx_backup": self._permit_mx_backup,
            "reject_unlisted_recipient": self._reject_unlisted_recipient,
            "reject_unlisted_sender": self._reject_unlisted_sender,
        }

    async def _is_open(self, facts: Facts) -> bool:
        return facts.recipient is None or await self._tools.is_auth_destination(facts)

    async def _permit_auth_destination(self, scene: Scene) -> Result:
        facts = scene.facts
        return PERMIT if facts.recipient is not None and await self._tools.is_auth_destination(facts) else None

    async def _reject_unauth_destination(self, scene: Scene) -> Result:
        if await self._is_open(scene.facts):
            return None
        dsn = "5.7.1" if self._code >= 500 else "4.7.1"
        return Verdict(self._code, dsn, f"<{shown(scene.facts.recipient or b'')}>: Relay access denied")

    async def _defer_unauth_destination(self, scene: Scene) -> Result:
        if await self._is_open(scene.facts):
            return None
        return Verdict(454, "4.7.1", f"<{shown(scene.facts.recipient or b'')}>: Relay access denied")

    async def _check_relay_domains(self, scene: Scene) -> Result:
        facts = scene.facts
        if facts.client_name != "unknown" and await self._relay_domains.match(facts.client_name):
            return PERMIT
        if await self._is_open(facts):
            return PERMIT
        # The old restriction says it in other words than reject_unauth_destination.
        text = f"<{shown(facts.recipient or b'')}>: Recipient address rejected: Relay access denied"
        return Verdict(self._code, f"{self._code // 100}.7.1", text)

    async def _permit_mx_backup(self, scene: Scene) -> Result:
        """This host is among the mail exchangers, none of the best is this host, and the best are in the allowed networks."""
        facts = scene.facts
        if not facts.recipient:
            return None
        if await self._tools.is_auth_destination(facts):
            return PERMIT
        route = await self._tools.resolve(facts.recipient, facts.sender or b"")
        local, _, _ = route.recipient.rpartition(b"@")
        domain = domain_of(route.recipient)
        if not domain or domain.startswith("[") or b"@" in local or b"%" in local or b"!" in local:
            return None
        resolver = self._tools.dns()
        answer = await resolver.mx(domain)
        if answer.outcome is Outcome.FAIL:
            about = scene.about(shown(facts.recipient), "Recipient address")
            text = "Unable to look up mail exchanger information: Host not found, try again"
            scene.defer_if_reject(about.refuse(450, "4.4.4", text))
            return None
        if answer.outcome is not Outcome.OK:
            return None
        records = sorted((record for record in answer.records if record.value), key=lambda record: record.preference)
        found = await asyncio.gather(*(resolver.addresses(record.value, lookup=("dns",)) for record in records))
        own = [r.preference for r, f in zip(records, found, strict=True) if any(a in self._own for a in f.addresses)]
        if not own or min(own) == records[0].preference:
            return None
        if self._backup_networks:
            for record, addresses in zip(records, found, strict=True):
                if record.preference == records[0].preference:
                    for address in addresses.addresses:
                        if not await self._backup_networks.match(address):
                            return None
        return PERMIT

    async def _reject_unlisted_recipient(self, scene: Scene) -> Result:
        facts = scene.facts
        if facts.recipient is None:
            return None
        return await self.refuse_unlisted(facts.recipient, facts.sender or b"", "Recipient")

    async def _reject_unlisted_sender(self, scene: Scene) -> Result:
        sender = scene.facts.sender
        if not sender:
            return None
        found = await self.unlisted.problem(sender, b"")
        if found is None:
            return None
        code, dsn, text = found
        about = scene.about(shown(sender), "Sender address")
        # What the error transport said is mapped as a table's text is; the words of our own are chosen for a sender.
        dsn = about.status(code, dsn) if await self._is_error(sender) else dsn.replace("1.1", "1.0")
        return about.refuse(code, dsn, text)

    async def _is_error(self, address: bytes) -> bool:
        return (await self._tools.resolve(address)).transport == "error"

    async def refuse_unlisted(self, address: bytes, sender: bytes, what: str) -> Verdict | None:
        """A refusal if the recipient ``address`` is in a domain whose users are listed and it is not among them."""
        found = await self.unlisted.problem(address, sender)
        if found is None:
            return None
        code, dsn, text = found
        return Verdict(code, dsn, f"<{shown(address)}>: {what} address rejected: {text}")
