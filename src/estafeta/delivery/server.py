"""Taking delivery requests: at most ``limit`` at once (the service's maxproc), the rest waits in order.

The agent's ``deliver`` coroutine is driven on the spot; one that never waits (discard, error) costs no task. An exception that
nobody expected defers what has no result yet and is logged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from estafeta.delivery.report import Delivery
from estafeta.ipc.channel import Connection
from estafeta.ipc.messages import DeliverRequest, Message, Refused
from estafeta.system.log import Log


class DeliveryServer:
    """See the module."""

    def __init__(
        self,
        deliver: Callable[[Delivery], Awaitable[None]],
        *,
        log: Log,
        limit: int,
        run: Callable[[Coroutine[Any, Any, None]], None],
        next_number: Callable[[], int],
        unexpected: Callable[[BaseException], None],
        soft_bounce: bool = False,
    ) -> None:
        self._deliver = deliver
        self._log = log
        self._limit = limit
        self._run = run
        self._next_number = next_number
        self._unexpected = unexpected
        self._soft_bounce = soft_bounce
        self._waiting: deque[tuple[Connection, int, DeliverRequest]] = deque()
        self._replies: list[tuple[Connection, int, Delivery]] = []
        self.active = 0

    @property
    def busy(self) -> bool:
        """True while a delivery is under way or its answer has not been sent."""
        return self.active > 0 or bool(self._replies)

    def _reply(self, connection: Connection, number: int, delivery: Delivery) -> None:
        """Answer at the end of the loop turn, behind the log lines: ``status=sent`` stands before qmgr's ``removed``."""
        if self._log.schedule is None:
            connection.reply(number, delivery.reply)
            return
        if not self._replies:
            self._log.schedule(self._flush)
        self._replies.append((connection, number, delivery))

    def _flush(self) -> None:
        self._log.flush()
        replies, self._replies = self._replies, []
        for connection, number, delivery in replies:
            connection.reply(number, delivery.reply)

    def handle(self, connection: Connection, number: int, message: Message) -> None:
        """A frame for a delivery agent."""
        if not isinstance(message, DeliverRequest):
            connection.reply(number, Refused("delivery agent: unknown request"))
        elif self._limit and self.active >= self._limit:
            self._waiting.append((connection, number, message))
        else:
            self.active += 1
            self._run(self._one(connection, number, message))

    async def _one(self, connection: Connection, number: int, request: DeliverRequest) -> None:
        delivery = Delivery(request, self._log, self._next_number(), soft_bounce=self._soft_bounce)
        try:
            await self._deliver(delivery)
        except Exception as error:  # noqa: BLE001 - temporary, with the trace in the log (DESIGN section 9)
            self._unexpected(error)
            delivery.all_deferred("4.3.0", "internal delivery error")
        self._reply(connection, number, delivery)
        self.active -= 1
        while self._waiting and (not self._limit or self.active < self._limit):
            waiting_connection, waiting_number, waiting_request = self._waiting.popleft()
            if waiting_connection.open:
                self.active += 1
                self._run(self._one(waiting_connection, waiting_number, waiting_request))
                break
