"""Asking trivial-rewrite: resolve with a short memory, so that a busy destination costs one question a second.

Raises ServiceLost when the service cannot be asked; a route with ``failed`` means that a table could not be asked. Neither is
remembered.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from estafeta.ipc.channel import Channel, ServiceLost
from estafeta.ipc.messages import Resolve, Route

MEMORY_S = 1.0
_MAX_KNOWN = 10000


class RewriteClient:
    """One process's view of trivial-rewrite."""

    def __init__(self, channel: Channel, clock: Callable[[], float] = time.monotonic) -> None:
        self._channel = channel
        self._clock = clock
        self._known: dict[tuple[bytes, bytes], Route] = {}
        self._forget_at = 0.0

    def known(self, address: bytes, sender: bytes) -> Route | None:
        """The route if it was asked for within the last second."""
        if self._clock() >= self._forget_at:
            self._known.clear()
            return None
        return self._known.get((address, sender))

    async def resolve(self, address: bytes, sender: bytes = b"", *, verify: bool = False) -> Route:
        """The route for ``address`` (internal form), with the address_verify_* parameters on ``verify``; raises ServiceLost."""
        route = None if verify else self.known(address, sender)
        if route is not None:
            return route
        reply = await self._channel.call(Resolve(address, sender, verify))
        if not isinstance(reply, Route):
            raise ServiceLost("trivial-rewrite: unexpected reply")
        if not reply.failed and not verify:
            if self._clock() >= self._forget_at or len(self._known) >= _MAX_KNOWN:
                self._known.clear()
                self._forget_at = self._clock() + MEMORY_S
            self._known[address, sender] = reply
        return reply
