"""Restrictions about the names that a client gives itself or has: HELO, fully qualified addresses, reverse DNS.

Source: postconf(5) smtpd_helo_restrictions, smtpd_client_restrictions, reject_non_fqdn_sender, reject_non_fqdn_recipient.
"""

from __future__ import annotations

from estafeta.daemons.smtpd.access.tools import Tools
from estafeta.daemons.smtpd.access.verdict import (
    PERMIT,
    Check,
    Result,
    Scene,
    Verdict,
    domain_of,
    is_hostname,
    is_numeric,
    shown,
)
from estafeta.dns.client_name import NameStatus


class Names:
    """See the module."""

    def __init__(self, tools: Tools) -> None:
        config = tools.config
        self._non_fqdn_code = config.int("non_fqdn_reject_code")
        self._invalid_code = config.int("invalid_hostname_reject_code")
        self._client_code = config.int("unknown_client_reject_code")
        self.checks: dict[str, Check] = {
            "reject_invalid_helo_hostname": self._reject_invalid_helo,
            "reject_non_fqdn_helo_hostname": self._reject_non_fqdn_helo,
            "permit_naked_ip_address": self._permit_naked_ip_address,
            "reject_non_fqdn_sender": self._reject_non_fqdn_sender,
            "reject_non_fqdn_recipient": self._reject_non_fqdn_recipient,
            "reject_unknown_client_hostname": self._reject_unknown_client,
            "reject_unknown_reverse_client_hostname": self._reject_unknown_reverse,
        }

    def _helo(self, scene: Scene) -> Scene:
        return scene.about(scene.facts.helo, "Helo command")

    async def _reject_invalid_helo(self, scene: Scene) -> Result:
        helo = scene.facts.helo
        if not helo or is_hostname(helo) or helo.startswith("[") or is_numeric(helo):
            return None
        return self._helo(scene).refuse(self._invalid_code, "5.5.2", "Invalid name")

    async def _reject_non_fqdn_helo(self, scene: Scene) -> Result:
        helo = scene.facts.helo
        if not helo or helo.startswith("[") or (is_hostname(helo) and "." in helo):
            return None
        return self._helo(scene).refuse(self._non_fqdn_code, "5.5.2", "need fully-qualified hostname")

    async def _permit_naked_ip_address(self, scene: Scene) -> Result:
        helo = scene.facts.helo
        return PERMIT if helo and (is_numeric(helo)) else None

    def _non_fqdn(self, scene: Scene, address: bytes, what: str) -> Result:
        domain = domain_of(address)
        if domain.startswith("[") or (is_hostname(domain) and "." in domain):
            return None
        return scene.about(shown(address), what).refuse(self._non_fqdn_code, "5.5.2", "need fully-qualified address")

    async def _reject_non_fqdn_sender(self, scene: Scene) -> Result:
        sender = scene.facts.sender
        return self._non_fqdn(scene, sender, "Sender address") if sender else None

    async def _reject_non_fqdn_recipient(self, scene: Scene) -> Result:
        recipient = scene.facts.recipient
        return self._non_fqdn(scene, recipient, "Recipient address") if recipient else None

    def _nameless(self, scene: Scene, status: NameStatus, what: str, detail: int) -> Result:
        code = 450 if status == NameStatus.TEMPORARY else self._client_code
        text = f"Client host rejected: cannot find your {what}hostname, [{scene.facts.client_address}]"
        return Verdict(code, f"{code // 100}.7.{detail}", text)

    async def _reject_unknown_client(self, scene: Scene) -> Result:
        status = scene.facts.name_status
        return None if status == NameStatus.OK else self._nameless(scene, status, "", 25)

    async def _reject_unknown_reverse(self, scene: Scene) -> Result:
        status = scene.facts.reverse_status
        return None if status == NameStatus.OK else self._nameless(scene, status, "reverse ", 1)
