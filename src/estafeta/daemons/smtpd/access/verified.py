"""reject_unverified_sender and reject_unverified_recipient.

Source: postconf(5) under those names, unverified_*_reject_code, unverified_*_defer_code, unverified_*_tempfail_action,
unverified_*_reject_reason, address_verify_poll_count; ADDRESS_VERIFICATION_README. Postfix asks verify(8) address_verify_poll_count
times; ours waits for the result that long.
"""

from __future__ import annotations

from dataclasses import dataclass

from estafeta.clients.verify import VerifyClient
from estafeta.daemons.smtpd.access.tools import Tools
from estafeta.daemons.smtpd.access.verdict import Check, Result, Scene, shown
from estafeta.ipc.channel import ServiceLost
from estafeta.ipc.messages import VerifyStatus

_MAX_TEXT = 250


@dataclass(frozen=True, slots=True)
class _Kind:
    kind: str
    reject_code: int
    defer_code: int
    action: str
    reason: str
    dsn: str


class Verified:
    """See the module."""

    def __init__(self, tools: Tools, client: VerifyClient | None) -> None:
        config = tools.config
        self._tools = tools
        self._client = client
        polls = max(1, config.int("address_verify_poll_count"))
        self._wait_s = polls * config.seconds("address_verify_poll_delay") if polls > 1 else 0.0
        sender = _Kind(
            "Sender address",
            config.int("unverified_sender_reject_code"),
            config.int("unverified_sender_defer_code"),
            config.get("unverified_sender_tempfail_action"),
            config.get("unverified_sender_reject_reason"),
            "4.1.7",
        )
        recipient = _Kind(
            "Recipient address",
            config.int("unverified_recipient_reject_code"),
            config.int("unverified_recipient_defer_code"),
            config.get("unverified_recipient_tempfail_action"),
            config.get("unverified_recipient_reject_reason"),
            "4.1.1",
        )

        async def check_sender(scene: Scene) -> Result:
            address = scene.facts.sender
            return await self._check(scene, sender, address) if address else None

        async def check_recipient(scene: Scene) -> Result:
            address = scene.facts.recipient
            return await self._check(scene, recipient, address) if address else None

        self.checks: dict[str, Check] = {
            "reject_unverified_sender": check_sender,
            "reject_unverified_recipient": check_recipient,
        }

    async def _check(self, scene: Scene, kind: _Kind, address: bytes) -> Result:
        about = scene.about(shown(address), kind.kind)
        status, text = await self._ask(address)
        if status == VerifyStatus.OK:
            return None
        text = text[:_MAX_TEXT]
        text = kind.reason or text
        bad = status == VerifyStatus.BOUNCE
        if bad and kind.reject_code >= 500:
            return about.refuse(kind.reject_code, kind.dsn, f"undeliverable address: {text}")
        code = kind.reject_code if bad else kind.defer_code
        return scene.tempfail(kind.action, about.refuse(code, kind.dsn, f"unverified address: {text}"))

    async def _ask(self, address: bytes) -> tuple[VerifyStatus, str]:
        if self._client is None:
            return VerifyStatus.TODO, "Address verification problem"
        route = await self._tools.resolve(address)
        try:
            reply = await self._client.ask(route.recipient, self._wait_s)
        except ServiceLost as error:
            self._tools.warn(f"address verification service: {error}")
            return VerifyStatus.TODO, "Address verification problem"
        return VerifyStatus(reply.status), reply.text
