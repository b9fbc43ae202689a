"""What administrators ask of a running queue manager: flush, delete, hold, release, requeue.

Source: postqueue(1), postsuper(1). postsuper without a running queue manager does the same to the files itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from estafeta.daemons.qmgr.message import Message
from estafeta.ipc.channel import ServiceLost
from estafeta.ipc.messages import CleanupFlag, CleanupStatus, Enqueue, EnqueueReply, QueueCommand, QueueCommandReply, Recipient
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
    message = qmgr.active.get(queue_id)
    if message is not None:
        message.released = message.released or message.moving
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
    qmgr.dispatcher.revive_all()
    for message in qmgr.active.values():
        waiting = [message.envelope.recipients[index].address for index, _ in message.deferred]
        if message.moving and any(address.rpartition(b"@")[2].lower() == domain for address in waiting):
            message.released = True  # tried again as soon as it is safe in deferred/
            flushed.append(message.envelope.queue_id)
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
    if message is None and not qmgr.store.is_unfinished(queued.place):
        return False  # delivered or moved while others of the same command were worked on
    if verb == "delete":
        if message is not None:
            message.dropped = True
            return True
        qmgr.backlog.pop(queue_id, None)
        qmgr.store.register(queued.place)
        qmgr.store.finish(queued.place, queued.envelope, [], last=True)
        qmgr.store.flush()
        qmgr.log.info(f"{queue_id}: removed")
        return True
    if verb == "hold":
        if queued.queue == "hold":
            return False
        if message is not None:
            message.released = False
            message.hold = True
            return True
        _hold_file(qmgr, queued)
        return True
    if verb == "release":
        if queued.queue != "hold" or message is not None:
            return False
        _release_file(qmgr, queued)
        return True
    return await _requeue(qmgr, queued) if message is None else False


def _hold_file(qmgr: Qmgr, queued: Queued) -> None:
    qmgr.store.register(queued.place)
    left = [index for index in range(len(queued.envelope.recipients)) if index not in queued.done]
    message = Message(queued.place, queued.envelope, time.time(), 0, queued.done, hold=True)
    qmgr.backlog.pop(queued.envelope.queue_id, None)
    qmgr.active[queued.envelope.queue_id] = message
    qmgr.mover.move(message, "hold", left)


def _release_file(qmgr: Qmgr, queued: Queued) -> None:
    """Out of hold/ for good: a queue manager that is killed now must not put the message back there."""
    left = [index for index in range(len(queued.envelope.recipients)) if index not in queued.done]
    queued.envelope.hold = False
    queued.envelope.next_try_at = time.time()
    message = Message(queued.place, queued.envelope, time.time(), 0, queued.done, released=True)
    qmgr.active[queued.envelope.queue_id] = message
    qmgr.mover.move(message, "deferred", left)


async def _requeue(qmgr: Qmgr, queued: Queued) -> bool:
    """postsuper -r: through cleanup again, under a new queue id; the old one goes when the new one is safe."""
    queue_id = queued.envelope.queue_id
    waiting = qmgr.backlog.pop(queue_id, None)
    # Nobody else may take the message up while cleanup works on it.
    qmgr.active[queue_id] = Message(queued.place, queued.envelope, time.time(), 0, queued.done)
    qmgr.store.register(queued.place)
    new_id = ""
    try:
        new_id = await _enqueue_again(qmgr, queued)
        if new_id:
            qmgr.store.finish(queued.place, queued.envelope, [], last=True)
            qmgr.store.flush()
            qmgr.log.info(f"{queue_id}: requeued as {new_id}")
    finally:
        del qmgr.active[queue_id]
        if not new_id and queued.queue == "incoming":
            qmgr.backlog[queue_id] = waiting or (queued.place, queued.done)
        qmgr.fill()
    return bool(new_id)


async def _enqueue_again(qmgr: Qmgr, queued: Queued) -> str:
    """What is left of the message becomes a new one; its queue id, or nothing."""
    old = queued.envelope
    reader = ContentReader(qmgr.context.queue_directory)
    try:
        content = reader.read(queued.place)
    except OSError as error:
        qmgr.log.warning(f"{old.queue_id}: {error}")
        return ""
    finally:
        reader.close()
    left = [
        Recipient(recipient.original or recipient.address, b"", recipient.notify, recipient.orcpt)
        for index, recipient in enumerate(old.recipients)
        if index not in queued.done
    ]
    new = msgspec.structs.replace(
        old, queue_id="", recipients=left, attempts=0, next_try_at=0.0, hold=False
    )
    flags = int(CleanupFlag.MAP | CleanupFlag.FILTER)
    try:
        reply = await qmgr.context.channel("cleanup").call(Enqueue(new, content, flags))
    except ServiceLost as error:
        qmgr.log.warning(f"{old.queue_id}: requeue: {error}")
        return ""
    if not isinstance(reply, EnqueueReply) or reply.status != CleanupStatus.OK:
        qmgr.log.warning(f"{old.queue_id}: requeue: refused by cleanup")
        return ""
    return reply.queue_id
