"""What happens when every recipient of a message has a result: notices, deferral, removal.

Source: qmgr(8), RFC 3461 section 5.2; DESIGN section 7. One linear story: failed recipients are reported (the bounce service says
when the report is safe), then marked done; what is left is deferred or too old; a message without recipients goes.
Invariant: a recipient is marked done only after it was delivered or the notice about it is safe in the queue.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from estafeta.daemons.qmgr.message import Message
from estafeta.daemons.qmgr.settings import next_delay
from estafeta.ipc.channel import ServiceLost
from estafeta.ipc.messages import (
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    ContentFlag,
    Notice,
    NoticeKind,
    NoticeRecipient,
    NoticeReply,
    Outcome,
    RecipientResult,
    VerifyStatus,
    VerifyUpdate,
)

if TYPE_CHECKING:
    from estafeta.daemons.qmgr.service import Qmgr


def wants_success(message: Message, index: int) -> bool:
    """Did the sender ask to hear of a delivery (NOTIFY=SUCCESS, sendmail -v)?"""
    envelope = message.envelope
    return bool(envelope.recipients[index].notify & NOTIFY_SUCCESS) or bool(envelope.flags & ContentFlag.VERBOSE_TRACE)


def is_simple(message: Message) -> bool:
    """True if nothing but removal is left to do: the usual end."""
    return not (message.deferred or message.bounced or message.sent)


async def finish(qmgr: Qmgr, message: Message) -> None:
    """Everything but the usual end."""
    envelope = message.envelope
    now = time.time()
    settings = qmgr.settings
    lifetime = settings.lifetime_s if envelope.sender else settings.bounce_lifetime_s
    if message.deferred and now >= envelope.arrived_at + lifetime:
        qmgr.log.info(f"{envelope.queue_id}: from=<{envelope.sender.decode('utf-8', 'surrogateescape')}>, "
                      "status=expired, returned to sender")  # fmt: skip
        message.bounced.extend(message.deferred)
        message.deferred = []
    if envelope.flags & ContentFlag.PROBE:
        _tell_verify(qmgr, message)
        qmgr.remove(message)
        return
    if message.sent and await _notify(qmgr, message, NoticeKind.SUCCESS, message.sent):
        pass  # a success report that cannot be made is not worth a second delivery
    if message.bounced:
        wanted = [(i, r) for i, r in message.bounced if _wants_failure(message, i)]
        if not wanted or await _notify(qmgr, message, NoticeKind.FAILURE, wanted):
            indexes = [index for index, _ in message.bounced]
            message.done.update(indexes)
            if message.deferred:
                qmgr.mark_done(message, indexes)
        else:
            message.deferred.extend(message.bounced)  # tried again: the failure repeats itself and is reported then
    if not message.deferred:
        qmgr.remove(message)
        return
    if settings.delay_warning_s and not envelope.warned and now >= envelope.arrived_at + settings.delay_warning_s:
        warned = [(i, r) for i, r in message.deferred if _wants_delay(message, i)]
        if not warned or await _notify(qmgr, message, NoticeKind.DELAY, warned):
            envelope.warned = True
    for index, result in message.deferred:
        recipient = envelope.recipients[index]
        recipient.reason, recipient.status = result.reason, result.dsn
    envelope.attempts += 1
    envelope.next_try_at = now + next_delay(envelope.arrived_at, now, settings)
    qmgr.defer(message)


_PROBED = {
    Outcome.SENT: VerifyStatus.OK,
    Outcome.DEFERRED: VerifyStatus.DEFER,
    Outcome.BOUNCED: VerifyStatus.BOUNCE,
}


def _tell_verify(qmgr: Qmgr, message: Message) -> None:
    """A probe has come back. A result that does not get there is found out again by the next probe."""
    channel = qmgr.context.channel(qmgr.config.get("address_verify_service_name"))
    for index, result in message.sent:
        recipient = message.envelope.recipients[index]
        status = _PROBED[Outcome(result.outcome)]
        channel.notify(VerifyUpdate(recipient.original or recipient.address, status, result.reason))


def _wants_failure(message: Message, index: int) -> bool:
    notify = message.envelope.recipients[index].notify
    return notify == 0 or bool(notify & NOTIFY_FAILURE)


def _wants_delay(message: Message, index: int) -> bool:
    notify = message.envelope.recipients[index].notify
    return bool(message.envelope.sender) and notify != NOTIFY_NEVER and (notify == 0 or bool(notify & NOTIFY_DELAY))


async def _notify(qmgr: Qmgr, message: Message, kind: NoticeKind, results: list[tuple[int, RecipientResult]]) -> bool:
    """Ask the bounce service for a notice; True once it is safe (or not called for)."""
    envelope = message.envelope
    recipients = [NoticeRecipient(envelope.recipients[index], result) for index, result in results]
    service = {NoticeKind.FAILURE: "bounce", NoticeKind.DELAY: "defer", NoticeKind.SUCCESS: "trace"}[kind]
    if not qmgr.context.has_service(service):
        service = "bounce"  # one program serves all three; an old master.cf may not have trace
    try:
        reply = await qmgr.context.channel(service).call(Notice(kind, message.place, envelope, recipients))
    except ServiceLost as error:
        qmgr.log.warning(f"{envelope.queue_id}: {service} service: {error}")
        return False
    return isinstance(reply, NoticeReply) and reply.ok


def sort_result(message: Message, index: int, result: RecipientResult) -> None:
    """File one result."""
    if message.envelope.flags & ContentFlag.TRACE:  # sendmail -bv: whatever would have happened goes into the report
        message.done.add(index)
        message.sent.append((index, result))
    elif result.outcome == Outcome.SENT:
        message.done.add(index)
        if wants_success(message, index):
            message.sent.append((index, result))
    elif result.outcome == Outcome.BOUNCED:
        message.bounced.append((index, result))
    else:
        message.deferred.append((index, result))
