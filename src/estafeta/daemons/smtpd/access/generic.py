"""Restrictions about no one name: permit and reject, networks, TLS, pipelining, number of recipients.

Source: postconf(5) smtpd_client_restrictions ("generic restrictions"), smtpd_data_restrictions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from estafeta.daemons.smtpd.access.tools import Tools
from estafeta.daemons.smtpd.access.verdict import PERMIT, Check, Result, Scene, Verdict
from estafeta.service.own_addresses import own_addresses
from estafeta.tables.match_list import AddressList, StringList


class Generic:
    """See the module; ``checks`` names them."""

    def __init__(self, tools: Tools) -> None:
        config = tools.config
        self.mynetworks = AddressList(config.get("mynetworks"), tools.options, "mynetworks")
        self._reject_code = config.int("reject_code")
        self._defer_code = config.int("defer_code")
        self._plaintext_code = config.int("plaintext_reject_code")
        self._multi_code = config.int("multi_recipient_bounce_reject_code")
        self._own = own_addresses(config)
        self._client_certificates = StringList(config.get("relay_clientcerts"), tools.options, "relay_clientcerts")
        self.checks: dict[str, Check] = {
            "permit": self._permit,
            "reject": self._reject,
            "defer": self._defer,
            "defer_if_permit": self._defer_if_permit,
            "defer_if_reject": self._defer_if_reject,
            "permit_mynetworks": self._permit_mynetworks,
            "permit_inet_interfaces": self._permit_inet_interfaces,
            "permit_sasl_authenticated": self._permit_sasl_authenticated,
            "permit_tls_clientcerts": self._permit_tls_clientcerts,
            "permit_tls_all_clientcerts": self._permit_tls_all_clientcerts,
            "reject_plaintext_session": self._reject_plaintext_session,
            "reject_unauth_pipelining": self._reject_unauth_pipelining,
            "reject_multi_recipient_bounce": self._reject_multi_recipient_bounce,
        }

    @staticmethod
    def sleep(seconds: str) -> Check:
        """``sleep N``; raises ValueError."""
        delay_s = int(seconds)

        async def check(scene: Scene) -> Result:
            await asyncio.sleep(delay_s)
            return None

        return check

    async def _permit(self, scene: Scene) -> Result:
        return PERMIT

    async def _reject(self, scene: Scene) -> Result:
        return scene.refuse(self._reject_code, "5.7.1", "Access denied")

    async def _defer(self, scene: Scene) -> Result:
        return scene.refuse(self._defer_code, "4.3.2", "Try again later")

    async def _defer_if_permit(self, scene: Scene) -> Result:
        scene.defer_if_permit(scene.refuse(self._defer_code, "4.7.0", "defer_if_permit requested"))
        return None

    async def _defer_if_reject(self, scene: Scene) -> Result:
        scene.defer_if_reject(scene.refuse(self._defer_code, "4.7.0", "defer_if_reject requested"))
        return None

    async def _permit_mynetworks(self, scene: Scene) -> Result:
        return PERMIT if await self.mynetworks.match(scene.facts.client_address) else None

    async def _permit_inet_interfaces(self, scene: Scene) -> Result:
        return PERMIT if scene.facts.client_address in self._own else None

    async def _permit_sasl_authenticated(self, scene: Scene) -> Result:
        return PERMIT if scene.facts.sasl_username else None

    async def _permit_tls_clientcerts(self, scene: Scene) -> Result:
        facts = scene.facts
        for fingerprint in (facts.ccert_fingerprint, facts.ccert_pubkey_fingerprint):
            if fingerprint and await self._client_certificates.match(fingerprint):
                return PERMIT
        return None

    async def _permit_tls_all_clientcerts(self, scene: Scene) -> Result:
        return PERMIT if scene.facts.ccert_trusted else None

    async def _reject_plaintext_session(self, scene: Scene) -> Result:
        if scene.facts.tls:
            return None
        return Verdict(self._plaintext_code, f"{self._plaintext_code // 100}.7.1", "Session encryption is required")

    async def _reject_unauth_pipelining(self, scene: Scene) -> Result:
        if not scene.facts.pipelined:
            return None
        text = f"<{scene.name}>: {scene.kind} rejected: Improper use of SMTP command pipelining"
        return Verdict(503, "5.5.0", text)

    async def _reject_multi_recipient_bounce(self, scene: Scene) -> Result:
        facts = scene.facts
        if facts.sender != b"" or facts.recipient_count < 2:
            return None
        return scene.refuse(self._multi_code, "5.5.3", "Multi-recipient bounce")


Maker = Callable[[str], Check]
