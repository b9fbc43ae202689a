"""What administrators ask of a running queue manager: flush, delete, hold, release, requeue.

Source: postqueue(1), postsuper(1). postsuper without a running queue manager does the same to the files itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from estafeta.daemons.qmgr.message import Message
from estafeta.ipc.channel import ServiceLost
from estafeta.ipc.messages import CleanupFlag, CleanupStatus, Enqueue, EnqueueReply, QueueCommand, QueueCommandReply
from estafeta.mail.queue_id import is_queue_id
from estafeta.spool import scan
from estafeta.spool.content import ContentReader
from estafeta.spool.scan import Queued

if TYPE_CHECKING:
    from estafeta.daemons.qmgr.service import Qmgr


async def run(qmgr: Qmgr, command: QueueCommand) -> QueueCommandReply:
    """One command; ``lines`` of the reply name the messages that were touched."""
    verb, arguments = command.verb, command.arguments
    if verb == "flush":
        qmgr.deferred.flush()
        return QueueCommandReply(True)
    if verb == "flush_one":
        return QueueCommandReply(_flush_one(qmgr, arguments[0]))
    if verb == "flush_site":
        return QueueCommandReply(True, _flush_site(qmgr, arguments[0]))
    if verb == "active":
        return QueueCommandReply(True, list(qmgr.active))
    if verb in ("delete", "hold", "release", "requeue"):
        touched = []
        for queued in list(_select(qmgr, arguments, verb)):
            if await _apply(qmgr, verb, queued):
                touched.append(queued.envelope.queue_id)
        return QueueCommandReply(True, touched)
    return QueueCommandReply(False, [f"unknown command {verb}"])


def _flush_one(qmgr: Qmgr, queue_id: str) -> bool:
    if queue_id in qmgr.active:
        return True
    if not is_queue_id(queue_id):
        return False
    queued = scan.find_message(qmgr.context.queue_directory, queue_id)
    if queued is None or queued.queue != "deferred":
        return False
    qmgr.activate(queued.place, queued.envelope, queued.done)
    return True


def _flush_site(qmgr: Qmgr, site: str) -> list[str]:
    domain = site.lower().encode()
    flushed = []
    for queued in scan.list_queue(qmgr.context.queue_directory, "deferred"):
        if queued.envelope.queue_id in qmgr.active:
            continue
        for index, recipient in enumerate(queued.envelope.recipients):
            if index not in queued.done and recipient.address.rpartition(b"@")[2].lower() == domain:
                qmgr.activate(queued.place, queued.envelope, queued.done)
                flushed.append(queued.envelope.queue_id)
                break
    return flushed


def _select(qmgr: Qmgr, arguments: list[str], verb: str) -> Iterator[Queued]:
    """``arguments``: queue names, a colon, then queue ids or ALL."""
    queues, _, ids = " ".join(arguments).partition(" : ")
    directory = qmgr.context.queue_directory
    wanted = ids.split()
    names = [name for name in queues.split() if name in ("incoming", "active", "deferred", "hold")]
    if "ALL" in wanted:
        for name in ("incoming", "deferred", "hold"):
            if name in names or (name == "incoming" and "active" in names):
                yield from scan.list_queue(directory, name)
        return
    for queue_id in wanted:
        if is_queue_id(queue_id):
            message = qmgr.active.get(queue_id)
            if message is not None:
                yield Queued("active", message.place, message.envelope, message.done)
                continue
            queued = scan.find_message(directory, queue_id)
            if queued is not None and queued.queue in names:
                yield queued


async def _apply(qmgr: Qmgr, verb: str, queued: Queued) -> bool:
    queue_id = queued.envelope.queue_id
    message = qmgr.active.get(queue_id)
    if verb == "delete":
        if message is not None:
            message.dropped = True
            return message.waiting > 0  # else it is being moved or finished this very moment
        qmgr.store.register(queued.place)
        qmgr.store.finish(queued.place, queued.envelope, [], last=True)
        qmgr.store.flush()
        qmgr.log.info(f"{queue_id}: removed")
        return True
    if verb == "hold":
        if queued.queue == "hold":
            return False
        if message is not None:
            message.hold = True
            return True
        _hold_file(qmgr, queued)
        return True
    if verb == "release":
        if queued.queue != "hold":
            return False
        queued.envelope.hold = False
        qmgr.activate(queued.place, queued.envelope, queued.done)
        return True
    return await _requeue(qmgr, queued) if message is None else False


def _hold_file(qmgr: Qmgr, queued: Queued) -> None:
    qmgr.store.register(queued.place)
    left = [index for index in range(len(queued.envelope.recipients)) if index not in queued.done]
    message = Message(queued.place, queued.envelope, time.time(), 0, queued.done, hold=True)
    qmgr.active[queued.envelope.queue_id] = message
    qmgr.mover.move(message, "hold", left)


async def _requeue(qmgr: Qmgr, queued: Queued) -> bool:
    """postsuper -r: through cleanup again, under a new queue id; the old one goes when the new one is safe."""
    old = queued.envelope
    reader = ContentReader(qmgr.context.queue_directory)
    try:
        content = reader.read(queued.place)
    except OSError as error:
        qmgr.log.warning(f"{old.queue_id}: {error}")
        return False
    finally:
        reader.close()
    left = [recipient for index, recipient in enumerate(old.recipients) if index not in queued.done]
    for recipient in left:
        if recipient.original:
            recipient.address, recipient.original = recipient.original, b""
        recipient.reason = recipient.status = ""
    old_id = old.queue_id
    old.recipients, old.queue_id = left, ""
    old.attempts, old.next_try_at, old.hold = 0, 0.0, False
    flags = int(CleanupFlag.MAP | CleanupFlag.FILTER)
    try:
        reply = await qmgr.context.channel("cleanup").call(Enqueue(old, content, flags))
    except ServiceLost as error:
        qmgr.log.warning(f"{old_id}: requeue: {error}")
        return False
    if not isinstance(reply, EnqueueReply) or reply.status != CleanupStatus.OK:
        return False
    old.queue_id = old_id
    qmgr.store.register(queued.place)
    qmgr.store.finish(queued.place, old, [], last=True)
    qmgr.store.flush()
    qmgr.log.info(f"{old_id}: requeued as {reply.queue_id}")
    return True



