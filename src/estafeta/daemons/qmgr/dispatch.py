"""From recipients to requests to agents and back: grouping, concurrency, dead destinations and transports.

Source: qmgr(8), SCHEDULER_README. Nothing here touches the disk.
Invariants: every request that was taken gets exactly one result for each of its recipients; a window's worth of requests at most
is under way for one destination.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from estafeta.config.config import Config
from estafeta.daemons.qmgr.destination import Destination, new_destination
from estafeta.daemons.qmgr.message import Message, Request
from estafeta.daemons.qmgr.settings import TransportSettings, read_transport
from estafeta.ipc.channel import Channel, ServiceLost
from estafeta.ipc.messages import ContentFlag, DeliverReply, DeliverRequest, Envelope, Outcome, RecipientResult
from estafeta.ipc.messages import Message as Frame
from estafeta.mail.text import to_text
from estafeta.service.context import Context

Finished = Callable[[Request, list[RecipientResult]], None]
RETRY = "retry"
_MAX_IDLE_DESTINATIONS = 5000


class Dispatcher:
    """All destinations."""

    def __init__(self, context: Context, config: Config, finished: Finished, *, retry_s: float, backoff_s: float) -> None:
        self._context = context
        self._config = config
        self._finished = finished
        self.retry_s = retry_s
        self.backoff_s = backoff_s
        self._destinations: dict[tuple[str, str], Destination] = {}
        self._transports: dict[str, TransportSettings] = {}
        self._dead_transports: dict[str, tuple[float, str]] = {}
        self.in_flight = 0
        self._stopped = False

    def reconfigure(self, config: Config, *, retry_s: float, backoff_s: float) -> None:
        """Take new parameters; destinations keep what they have learnt."""
        self._config = config
        self.retry_s, self.backoff_s = retry_s, backoff_s
        self._transports.clear()
        for destination in self._destinations.values():
            settings = self.transport(destination.transport)
            destination.window.limit = settings.concurrency_limit

    def transport(self, name: str) -> TransportSettings:
        """The parameters of a transport."""
        settings = self._transports.get(name)
        if settings is None:
            settings = self._transports[name] = read_transport(self._config, name)
        return settings

    def stop(self) -> None:
        """Start nothing more."""
        self._stopped = True

    def revive_all(self) -> None:
        """postqueue -f: forget what is dead."""
        self._dead_transports.clear()
        for destination in self._destinations.values():
            destination.dead_until = 0.0
            destination.window.revive()

    # -- taking -------------------------------------------------------------------------------------------------------

    def submit(self, message: Message, routed: dict[tuple[str, str], list[int]]) -> None:
        """Take the recipients of a message, grouped by transport and next hop."""
        now = time.monotonic()
        for (transport, nexthop), indexes in routed.items():
            settings = self.transport(transport)
            limit = settings.recipient_limit
            if limit == 1:
                for index in indexes:
                    key = to_text(message.envelope.recipients[index].address)
                    self._enqueue(transport, nexthop, key, settings, Request(message, [index]), now)
            elif not limit or len(indexes) <= limit:
                self._enqueue(transport, nexthop, nexthop, settings, Request(message, indexes), now)
            else:
                for start in range(0, len(indexes), limit):
                    part = Request(message, indexes[start : start + limit])
                    self._enqueue(transport, nexthop, nexthop, settings, part, now)

    def _enqueue(
        self, transport: str, nexthop: str, key: str, settings: TransportSettings, request: Request, now: float
    ) -> None:
        dead = self._dead_transports.get(transport)
        if dead is not None:
            if now < dead[0]:
                self._through_retry(request, dead[1])
                return
            del self._dead_transports[transport]
        slot = (transport, key)
        destination = self._destinations.get(slot)
        if destination is None:
            if len(self._destinations) > _MAX_IDLE_DESTINATIONS:
                self._forget_idle(now)
            destination = self._destinations[slot] = new_destination(transport, nexthop, key, settings)
        elif destination.dead_until:
            if now < destination.dead_until:
                self._through_retry(request, self._suspended(destination))
                return
            destination.dead_until = 0.0
            destination.window.revive()
        destination.waiting.append(request)
        self._pump(destination)

    def _forget_idle(self, now: float) -> None:
        for slot in [s for s, d in self._destinations.items() if d.idle and d.dead_until <= now]:
            del self._destinations[slot]

    @staticmethod
    def _suspended(destination: Destination) -> str:
        return f"{destination.dead_dsn or '4.3.0'} delivery temporarily suspended: {destination.dead_reason}"

    def through_retry(self, message: Message, indexes: list[int], reason: str) -> None:
        """Have the retry service defer recipients, so that the log line is where everybody looks for it."""
        self._through_retry(Request(message, indexes), reason)

    def _through_retry(self, request: Request, reason: str) -> None:
        # A master.cf from before 2006 has no retry service: error defers too when the status says so.
        service = RETRY if self._context.has_service(RETRY) else "error"
        destination = self._destinations.get((service, reason))
        if destination is None:
            if len(self._destinations) > _MAX_IDLE_DESTINATIONS:
                self._forget_idle(time.monotonic())
            destination = new_destination(service, reason, reason, self.transport(service))
            self._destinations[service, reason] = destination
        destination.waiting.append(request)
        self._pump(destination)

    # -- sending ------------------------------------------------------------------------------------------------------

    def _pump(self, destination: Destination) -> None:
        window = destination.window
        while destination.waiting and not self._stopped:
            limit = window.size
            if destination.in_flight >= limit and (limit or window.limit):
                return
            if destination.rate_delay_s:
                now = time.monotonic()
                if now < destination.not_before:
                    if not destination.timed:
                        destination.timed = True
                        self._context.loop.call_later(destination.not_before - now, self._pump_later, destination)
                    return
                destination.not_before = now + destination.rate_delay_s
            self._send(destination, destination.waiting.popleft())

    def _pump_later(self, destination: Destination) -> None:
        destination.timed = False
        self._pump(destination)

    def _send(self, destination: Destination, request: Request) -> None:
        message = request.message
        envelope = message.envelope
        indexes = request.indexes
        if message.dropped:
            self._done(request, [])
            return
        if len(indexes) == len(envelope.recipients):
            sent = envelope
        else:
            sent = _with_recipients(envelope, indexes)
        now = time.time()
        frame = DeliverRequest(
            message.place, sent, destination.transport, destination.nexthop, now, message.active_since,
            bool(envelope.flags & ContentFlag.TRACE), bool(destination.waiting),
        )  # fmt: skip
        destination.in_flight += 1
        self.in_flight += 1

        def answered(reply: Frame | ServiceLost) -> None:
            destination.in_flight -= 1
            self.in_flight -= 1
            self._answered(destination, request, reply)

        self._channel(destination.transport).request(frame, answered)

    def _channel(self, transport: str) -> Channel:
        return self._context.channel(transport)

    def _answered(self, destination: Destination, request: Request, reply: Frame | ServiceLost) -> None:
        if isinstance(reply, DeliverReply):
            results = reply.results
            if reply.site_dead:
                if destination.window.failed():
                    self._bury(destination, reply.site_dsn, reply.site_dead)
            else:
                destination.window.succeeded(destination.in_flight)
            if len(results) < len(request.indexes):
                results = _complete(results, len(request.indexes), "4.3.0", "delivery agent gave no result")
            self._done(request, results)
        else:
            self._lost(destination, request, str(reply))
        if destination.waiting:
            self._pump(destination)

    def _bury(self, destination: Destination, dsn: str, reason: str) -> None:
        destination.dead_until = time.monotonic() + self.backoff_s
        destination.dead_dsn = dsn
        destination.dead_reason = reason
        waiting = list(destination.waiting)
        destination.waiting.clear()
        for request in waiting:
            self._through_retry(request, self._suspended(destination))

    def _lost(self, destination: Destination, request: Request, reason: str) -> None:
        """The agent is gone, or was never there."""
        transport = destination.transport
        never = reason.startswith("connect to")
        text = "4.3.0 mail transport unavailable" if never else "4.3.0 unknown mail transport error"
        last_resort = transport in (RETRY, "error")
        if last_resort or self._stopped:
            dsn, _, plain = (destination.nexthop if last_resort else text).partition(" ")
            dsn = f"4{dsn[1:]}"
            self._done(request, _complete([], len(request.indexes), dsn, plain))
            return
        self._context.log.warning(f"transport {transport}: {reason}")
        if never:
            self._dead_transports[transport] = (time.monotonic() + self.retry_s, text)
            waiting = list(destination.waiting)
            destination.waiting.clear()
            for other in waiting:
                self._through_retry(other, text)
        self._through_retry(request, text)

    def _done(self, request: Request, results: list[RecipientResult]) -> None:
        self._finished(request, results)


def _complete(results: list[RecipientResult], count: int, dsn: str, reason: str) -> list[RecipientResult]:
    known = {result.index for result in results}
    rest = [RecipientResult(i, Outcome.DEFERRED, dsn, reason) for i in range(count) if i not in known]
    return [*results, *rest]


def _with_recipients(envelope: Envelope, indexes: list[int]) -> Envelope:
    import copy

    part = copy.copy(envelope)
    part.recipients = [envelope.recipients[index] for index in indexes]
    return part
