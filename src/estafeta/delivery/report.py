"""One delivery request under way: its recipients, what became of each, and the log line of each.

Source: the delivery agents' manual pages; postconf(5) soft_bounce. A recipient that nobody reports on is deferred by the queue
manager, so an agent that fails half-way loses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from estafeta.ipc.messages import DeliverReply, DeliverRequest, Outcome, Recipient, RecipientResult
from estafeta.mail import logline
from estafeta.system.log import Log

_STATUS = {Outcome.SENT: "sent", Outcome.DEFERRED: "deferred", Outcome.BOUNCED: "bounced"}
# sendmail -bv: nothing is delivered, so nothing is sent, put off or returned.
_VERIFIED = {Outcome.SENT: "deliverable", Outcome.DEFERRED: "undeliverable", Outcome.BOUNCED: "undeliverable"}


class Delivery:
    """See the module. ``number`` goes into the brackets of the log line."""

    __slots__ = ("_clock", "_log", "_soft_bounce", "_undecided", "connected_at", "number", "reply", "request", "started_at")

    def __init__(
        self, request: DeliverRequest, log: Log, number: int, *, soft_bounce: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.request = request
        self.number = number
        self.reply = DeliverReply([])
        self.started_at = clock()
        self.connected_at = 0.0
        self._clock = clock
        self._log = log
        self._soft_bounce = soft_bounce
        self._undecided = set(range(len(request.envelope.recipients)))

    @property
    def undecided(self) -> list[int]:
        """Numbers of the recipients without a result, in order."""
        return sorted(self._undecided)

    def recipient(self, index: int) -> Recipient:
        """Recipient number ``index`` of the request."""
        return self.request.envelope.recipients[index]

    def sent(self, index: int, text: str, relay: str, *, dsn: str = "2.0.0", mta: str = "", diagnostic: str = "",
             action: str = "delivered", uses: int = 1) -> None:  # fmt: skip
        """Delivered, relayed or expanded."""
        self._result(index, Outcome.SENT, dsn, text, relay, mta, diagnostic, action, uses)

    def deferred(self, index: int, dsn: str, text: str, relay: str = "none", *, mta: str = "", diagnostic: str = "",
                 uses: int = 1) -> None:  # fmt: skip
        """To be tried again."""
        self._result(index, Outcome.DEFERRED, dsn, text, relay, mta, diagnostic, "", uses)

    def bounced(self, index: int, dsn: str, text: str, relay: str = "none", *, mta: str = "", diagnostic: str = "",
                uses: int = 1) -> None:  # fmt: skip
        """Refused for good (deferred under soft_bounce)."""
        outcome = Outcome.BOUNCED
        if self._soft_bounce:
            outcome, dsn = Outcome.DEFERRED, "4" + dsn[1:]
        self._result(index, outcome, dsn, text, relay, mta, diagnostic, "", uses)

    def all_deferred(self, dsn: str, text: str, relay: str = "none") -> None:
        """Every recipient without a result."""
        for index in self.undecided:
            self.deferred(index, dsn, text, relay)

    def all_bounced(self, dsn: str, text: str, relay: str = "none") -> None:
        """Every recipient without a result."""
        for index in self.undecided:
            self.bounced(index, dsn, text, relay)

    def site_dead(self, dsn: str, reason: str) -> None:
        """The destination could not be reached at all: the queue manager slows it down."""
        self.reply.site_dead = reason
        self.reply.site_dsn = dsn

    def record(self, index: int, outcome: Outcome, dsn: str, text: str, action: str = "") -> None:
        """A result whose log lines were written with ``log_result`` (local(8): one recipient may expand to many)."""
        if outcome is Outcome.BOUNCED and self._soft_bounce:
            outcome, dsn = Outcome.DEFERRED, "4" + dsn[1:]
        if index in self._undecided:
            self._undecided.discard(index)
            self.reply.results.append(RecipientResult(index, outcome, dsn, text, "", "", action))

    def log_result(self, recipient: Recipient, outcome: Outcome, dsn: str, text: str, relay: str) -> None:
        """Log what became of ``recipient``, which need not be one of the request."""
        if outcome is Outcome.BOUNCED and self._soft_bounce:
            outcome, dsn = Outcome.DEFERRED, "4" + dsn[1:]
        self._line(recipient, outcome, dsn, text, relay, 1)

    def _result(self, index: int, outcome: Outcome, dsn: str, text: str, relay: str, mta: str, diagnostic: str,
                action: str, uses: int) -> None:  # fmt: skip
        if index not in self._undecided:
            return
        self._undecided.discard(index)
        self.reply.results.append(RecipientResult(index, outcome, dsn, text, mta, diagnostic, action))
        self._line(self.recipient(index), outcome, dsn, text, relay, uses)

    def _line(self, recipient: Recipient, outcome: Outcome, dsn: str, text: str, relay: str, uses: int) -> None:
        request = self.request
        envelope = request.envelope
        status = (_VERIFIED if request.trace else _STATUS)[outcome]
        now = self._clock()
        connected = self.connected_at or self.started_at
        delays = (
            max(0.0, request.queued_at - envelope.arrived_at),
            max(0.0, request.started_at - request.queued_at),
            max(0.0, connected - request.started_at),
            max(0.0, now - connected),
        )
        self._log.line(
            logline.delivery(
                envelope.queue_id, recipient.address, recipient.original, relay, delays, dsn, status, text, uses
            ),
            self.number,
        )
