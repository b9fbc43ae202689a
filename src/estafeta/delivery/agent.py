"""What every delivery agent's worker is: requests come in by the DeliveryServer, and while one is in hand the worker does not end.

Invariant: ``deliver`` leaves nobody without a result, or the DeliveryServer defers the rest.
"""

from __future__ import annotations

from estafeta.delivery.report import Delivery
from estafeta.delivery.server import DeliveryServer
from estafeta.ipc.channel import Connection
from estafeta.ipc.messages import Message
from estafeta.service.daemon import Daemon


class DeliveryAgent(Daemon):
    """See the module. An agent calls ``serve`` in its ``start``."""

    is_numbered = True  # each delivery has a number of its own for its log lines
    server: DeliveryServer

    async def deliver(self, delivery: Delivery) -> None:
        """Give every recipient a result."""
        raise NotImplementedError

    def serve(self, *, soft_bounce: bool = False) -> None:
        """Take requests from now on."""
        self.server = DeliveryServer(
            self.deliver,
            log=self.log,
            limit=self.context.client_limit,
            run=self.run_soon,
            next_number=self.context.next_number if self.is_numbered else _no_number,
            unexpected=self.unexpected,
            soft_bounce=soft_bounce,
        )

    def in_hand(self) -> bool:
        return self.server.busy

    def is_busy(self) -> bool:
        return super().is_busy() or self.server.busy

    def on_message(self, connection: Connection, number: int, message: Message) -> None:
        self.server.handle(connection, number, message)


def _no_number() -> int:
    return 0
