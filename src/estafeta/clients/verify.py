"""Asking verify(8) about an address. Raises ServiceLost when the service cannot be asked."""

from __future__ import annotations

from estafeta.ipc.channel import Channel, ServiceLost
from estafeta.ipc.messages import VerifyQuery, VerifyReply


class VerifyClient:
    """One process's view of verify(8)."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def ask(self, address: bytes, wait_s: float) -> VerifyReply:
        """What is known of ``address`` (internal form), waiting up to ``wait_s`` seconds for a probe."""
        reply = await self._channel.call(VerifyQuery(address, wait_s))
        if not isinstance(reply, VerifyReply):
            raise ServiceLost("verify: unexpected reply")
        return reply
