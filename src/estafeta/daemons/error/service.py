"""error(8). The next hop is ``[enhanced-status] reason``; the service called ``retry`` defers instead of bouncing."""

from __future__ import annotations

import re

from estafeta.delivery.report import Delivery
from estafeta.delivery.server import DeliveryServer
from estafeta.ipc.channel import Connection
from estafeta.ipc.messages import Message
from estafeta.service.daemon import Daemon

_STATUS = re.compile(r"([245]\.\d{1,3}\.\d{1,3})\s+(.*)", re.DOTALL)


class Error(Daemon):
    """error(8)."""

    max_workers = 1

    async def start(self) -> None:
        self.server = DeliveryServer(
            self.deliver,
            log=self.log,
            limit=self.context.client_limit,
            run=self.run_soon,
            next_number=lambda: 0,
            unexpected=self.unexpected,
            soft_bounce=self.config.bool("soft_bounce"),
        )

    def in_hand(self) -> bool:
        return self.server.busy

    def on_message(self, connection: Connection, number: int, message: Message) -> None:
        self.server.handle(connection, number, message)

    async def deliver(self, delivery: Delivery) -> None:
        """Everybody gets the reason."""
        found = _STATUS.fullmatch(delivery.request.nexthop)
        retry = self.context.service.name == "retry"
        dsn, text = (found[1], found[2]) if found else ("4.0.0" if retry else "5.0.0", delivery.request.nexthop)
        if retry or dsn.startswith("4"):
            delivery.all_deferred("4" + dsn[1:], text)
        else:
            delivery.all_bounced("5" + dsn[1:], text)
