"""Mail that an expansion sends elsewhere: back to the queue as a new message, or on to another transport.

Source: local(8) MAIL FORWARDING; postconf(5) mailbox_transport, fallback_transport, prepend_delivered_header.
"""

from __future__ import annotations

import os
import time

from estafeta.daemons.local.attempt import Attempt, State
from estafeta.ipc.channel import ServiceLost
from estafeta.ipc.messages import (
    Chunk,
    CleanupFlag,
    CleanupStatus,
    ContentFlag,
    DeliverReply,
    DeliverRequest,
    Enqueue,
    EnqueueReply,
    Envelope,
    Message,
    Outcome,
    Recipient,
)
from estafeta.mail.date import rfc5322_date
from estafeta.mail.queue_id import QueueIdMaker
from estafeta.mail.text import to_bytes
from estafeta.service.context import Context

_CHUNK = 1 << 18
_KEPT_FLAGS = ContentFlag.EIGHT_BIT | ContentFlag.SMTPUTF8 | ContentFlag.TRACE | ContentFlag.VERBOSE_TRACE


class Resubmit:
    """See the module."""

    def __init__(self, context: Context, prepend: bool, myhostname: str, mail_name: str, *, long_queue_ids: bool) -> None:
        self._mail_name = mail_name
        self._ids = QueueIdMaker(os.getpid(), time.time_ns, long=long_queue_ids)
        self._context = context
        self._prepend = prepend
        self._myhostname = myhostname
        self._stream = 0

    async def forward_all(self, attempt: Attempt, state: State) -> None:
        """One new message for each sender among the forwards; a failure is temporary for the whole recipient."""
        for sender, recipients in attempt.forwards.items():
            try:
                reply = await self._submit(attempt, sender, recipients)
            except (ServiceLost, OSError) as error:
                self._context.log.warning(f"{attempt.delivery.request.envelope.queue_id}: forward: {error}")
                attempt.failed(state, "4.3.0", "unable to forward message")
                continue
            if isinstance(reply, EnqueueReply) and reply.status in (CleanupStatus.OK, CleanupStatus.DISCARDED):
                attempt.sent(state, f"forwarded as {reply.queue_id}")
            else:
                attempt.failed(state, "4.3.0", "unable to forward message")

    async def _submit(self, attempt: Attempt, sender: bytes, recipients: list[Recipient]) -> Message:
        old = attempt.delivery.request.envelope
        envelope = Envelope(
            self._ids.next(), time.time(), sender, recipients, flags=old.flags & _KEPT_FLAGS, envid=old.envid, ret=old.ret,
            client_name=old.client_name, client_address=old.client_address, client_port=old.client_port,
            helo_name=old.helo_name, protocol=old.protocol, sasl_method=old.sasl_method,
            sasl_username=old.sasl_username, sasl_sender=old.sasl_sender, rewrite_context=old.rewrite_context,
            reverse_client_name=old.reverse_client_name,
        )  # fmt: skip
        place = attempt.source.place
        reader = attempt.source.reader
        on_top = b"Delivered-To: %s\r\n" % attempt.delivered if self._prepend else b""
        received = to_bytes(
            f"Received: by {self._myhostname} ({self._mail_name})\r\n"
            f"\tid {envelope.queue_id}; {rfc5322_date(envelope.arrived_at)}\r\n"
        )
        channel = self._context.channel("cleanup")
        first = reader.read(place, 0, _CHUNK)
        flags = int(CleanupFlag.MAP)
        if place.content_length <= _CHUNK:
            return await channel.call(Enqueue(envelope, on_top + first, flags, received))
        self._stream += 1
        stream = self._stream
        link = await channel.stream()
        try:
            link.notify(Enqueue(envelope, on_top + first, flags, received, more=True, stream=stream))
            last = (place.content_length - 1) // _CHUNK * _CHUNK
            for start in range(_CHUNK, last, _CHUNK):
                link.notify(Chunk(stream, reader.read(place, start, _CHUNK)))
                await link.drain()
            return await channel.call(Chunk(stream, reader.read(place, last, _CHUNK), last=True), link)
        except OSError:
            link.notify(Chunk(stream, b"", abort=True))
            raise
        finally:
            channel.end_stream(link)

    async def hand_over(self, attempt: Attempt, state: State, transport: str) -> None:
        """Let the delivery agent of ``transport`` (``name`` or ``name:nexthop``) deliver to this address."""
        name, _, nexthop = transport.partition(":")
        old = attempt.delivery.request
        recipient = attempt.at(state.address.whole)
        recipient.notify, recipient.orcpt = attempt.recipient.notify, attempt.recipient.orcpt
        envelope = _copy(old.envelope, [recipient])
        request = DeliverRequest(
            old.place, envelope, name, nexthop or self._myhostname, old.started_at, old.queued_at, old.trace
        )
        try:
            reply = await self._context.channel(name).call(request)
        except ServiceLost as error:
            attempt.failed(state, "4.3.0", f"mail transport unavailable: {error}")
            return
        if isinstance(reply, DeliverReply) and reply.results:
            result = reply.results[0]
            attempt.results.append((Outcome(result.outcome), result.dsn, result.reason))
        else:
            attempt.failed(state, "4.3.0", "mail transport unavailable")


def _copy(envelope: Envelope, recipients: list[Recipient]) -> Envelope:
    values = {name: getattr(envelope, name) for name in envelope.__struct_fields__}
    values["recipients"] = recipients
    return Envelope(**values)

