"""discard(8). The next hop is the text of the log line."""

from __future__ import annotations

from estafeta.delivery.report import Delivery
from estafeta.delivery.server import DeliveryServer
from estafeta.ipc.channel import Connection
from estafeta.ipc.messages import Message
from estafeta.service.daemon import Daemon


class Discard(Daemon):
    """discard(8)."""

    max_workers = 1

    async def start(self) -> None:
        self.server = DeliveryServer(
            self.deliver,
            log=self.log,
            limit=self.context.client_limit,
            run=self.run_soon,
            next_number=lambda: 0,
            unexpected=self.unexpected,
        )

    def in_hand(self) -> bool:
        return self.server.busy

    def on_message(self, connection: Connection, number: int, message: Message) -> None:
        self.server.handle(connection, number, message)

    async def deliver(self, delivery: Delivery) -> None:
        """Report success for everybody."""
        text = delivery.request.nexthop
        for index in delivery.undecided:
            delivery.sent(index, text, "none")
