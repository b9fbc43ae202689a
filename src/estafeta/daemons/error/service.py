"""error(8). The next hop is ``[enhanced-status] reason``; the service called ``retry`` defers instead of bouncing."""

from __future__ import annotations

import re

from estafeta.delivery.agent import DeliveryAgent
from estafeta.delivery.report import Delivery

_STATUS = re.compile(r"([245]\.\d{1,3}\.\d{1,3})\s+(.*)", re.DOTALL)


class Error(DeliveryAgent):
    """error(8)."""

    max_workers = 1
    is_numbered = False

    async def start(self) -> None:
        self.serve(soft_bounce=self.config.bool("soft_bounce"))

    async def deliver(self, delivery: Delivery) -> None:
        """Everybody gets the reason."""
        found = _STATUS.fullmatch(delivery.request.nexthop)
        retry = self.context.service.name == "retry"
        dsn, text = (found[1], found[2]) if found else ("4.0.0" if retry else "5.0.0", delivery.request.nexthop)
        if retry or dsn.startswith("4"):
            delivery.all_deferred("4" + dsn[1:], text)
        else:
            delivery.all_bounced("5" + dsn[1:], text)
