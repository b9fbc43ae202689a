"""The owner of the queue: takes word of new mail, routes it, keeps the books.

Invariants: a message is in ``active`` at most once; the active queue has at most qmgr_message_active_limit messages, the rest is
remembered by place only (``backlog``) or not at all (deferred); nothing is forgotten that is not on disk.
"""

from __future__ import annotations

import asyncio
import time

from estafeta.clients.rewrite import RewriteClient
from estafeta.config.config import load_config
from estafeta.daemons.qmgr import control, finish
from estafeta.daemons.qmgr.deferred import DeferredScanner
from estafeta.daemons.qmgr.dispatch import Dispatcher
from estafeta.daemons.qmgr.message import Message, Request
from estafeta.daemons.qmgr.mover import Mover
from estafeta.daemons.qmgr.settings import read_settings
from estafeta.ipc.channel import Connection, ServiceLost
from estafeta.ipc.messages import (
    Arrived,
    ContentFlag,
    Envelope,
    Hello,
    Outcome,
    Place,
    QueueCommand,
    RecipientResult,
    Refused,
    Route,
)
from estafeta.ipc.messages import Message as Frame
from estafeta.mail import logline
from estafeta.service.daemon import Daemon
from estafeta.spool.content import read_envelope
from estafeta.spool.queue import Move, QueueStore, SpoolBusy
from estafeta.spool.record import Damage, DamagedRecord
from estafeta.spool.scan import Queued

_OWNER_WAIT_S = 20.0
_SWEEP_S = 1.0
_RESCAN_DELAY_S = 0.1
_STOP_S = 5.0
_TEMPORARY_AGE_S = 3600.0  # a file that is still being written is younger
_RECOVER_AT_ONCE = 50


class Qmgr(Daemon):
    """qmgr(8)."""

    max_workers = 1
    stays = True

    store: QueueStore

    def prepare(self) -> None:
        self.settings = read_settings(self.config)
        self.active: dict[str, Message] = {}  # by queue id
        self.backlog: dict[str, tuple[Place, set[int]]] = {}  # by queue id: who waits for room, and who is finished
        self._flush_scheduled = False
        self._rescan: asyncio.TimerHandle | None = None
        self._rescanning = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        settings = self.settings
        self.store = await self._own_queue()
        self.rewrite = RewriteClient(self.context.channel("rewrite"))
        self.dispatcher = Dispatcher(
            self.context, self.config, self._finished,
            retry_s=settings.transport_retry_s, backoff_s=settings.minimal_backoff_s,
        )  # fmt: skip
        self.mover = Mover(self)
        self.deferred = DeferredScanner(self)
        for name in self.store.remove_temporary(time.time() - _TEMPORARY_AGE_S):
            self.log.info(f"{name}: unfinished file removed")
        self._sweep()
        self.rescan()
        self.deferred.start()

    async def _own_queue(self) -> QueueStore:
        """The previous queue manager may still be ending."""
        deadline = time.monotonic() + _OWNER_WAIT_S
        while True:
            try:
                return QueueStore(self.context.queue_directory)
            except SpoolBusy:
                if time.monotonic() > deadline:
                    raise OSError("the queue is owned by another process") from None
                await asyncio.sleep(0.02)

    def reload(self) -> bool:
        """New parameters without a new process: deliveries under way are not disturbed."""
        config = load_config(self.config.directory).with_overrides(self.context.service.overrides)
        self.settings = read_settings(config)
        self.config = self.context.config = config
        self.dispatcher.reconfigure(
            config, retry_s=self.settings.transport_retry_s, backoff_s=self.settings.minimal_backoff_s
        )
        self.deferred.restart()
        return True

    async def stop(self) -> None:
        self.dispatcher.stop()
        self.deferred.stop()
        deadline = time.monotonic() + _STOP_S
        while (self.dispatcher.in_flight or self.mover.busy) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        self.mover.close()
        self.store.close()

    def on_trigger(self, letters: bytes) -> None:
        """W: wake up; I: new mail; D: deferred; F: flush."""
        if b"F" in letters:
            self.deferred.flush()
        if b"D" in letters:
            self.deferred.run_now()
        self.rescan()

    def on_message(self, connection: Connection, number: int, message: Frame) -> None:
        if isinstance(message, Arrived):
            self.arrived(message.place, message.envelope)
        elif isinstance(message, Hello):
            self.rescan()
        elif isinstance(message, QueueCommand):
            self.answer(connection, number, control.run(self, message))
        else:
            connection.reply(number, Refused("qmgr: unknown request"))

    # -- new mail -----------------------------------------------------------------------------------------------------

    def arrived(self, place: Place, envelope: Envelope, done: set[int] | None = None) -> None:
        """A message is in ``incoming/``."""
        if not self.store.register(place):
            return
        if envelope.queue_id in self.active or envelope.queue_id in self.backlog:
            return  # a file of its own, found by a scan while it is under way
        if envelope.hold:
            message = Message(place, envelope, time.time(), 0, done or set(), hold=True)
            self.active[envelope.queue_id] = message
            self.mover.move(message, "hold", self._left(message))
        elif len(self.active) >= self.settings.active_limit:
            self.backlog[envelope.queue_id] = place, done or set()
        else:
            self.activate(place, envelope, done)

    def activate(self, place: Place, envelope: Envelope, done: set[int] | None = None) -> None:
        """Start delivering."""
        message = Message(place, envelope, time.time(), 0, done or set())
        self.active[envelope.queue_id] = message
        left = self._left(message)
        message.waiting = len(left)
        self.log.info(
            logline.queue_active(envelope.queue_id, envelope.sender, envelope.size, len(left))
        )
        if envelope.content_filter:
            transport, _, nexthop = envelope.content_filter.partition(":")
            self._submit_filtered(message, left, transport, nexthop)
            return
        if len(left) == 1 and not envelope.flags & ContentFlag.PROBE:
            route = self.rewrite.known(envelope.recipients[left[0]].address, envelope.sender)
            if route is not None:
                self._submit(message, [(left[0], route)])
                return
        self._spawn(self._route(message, left))

    def _left(self, message: Message) -> list[int]:
        return [index for index in range(len(message.envelope.recipients)) if index not in message.done]

    def _submit_filtered(self, message: Message, left: list[int], transport: str, nexthop: str) -> None:
        nexthop = nexthop or self.config.get("myhostname")
        if transport in self.settings.defer_transports:
            self.dispatcher.through_retry(message, left, "4.3.2 deferred transport")
        else:
            self.dispatcher.submit(message, {(transport, nexthop): left})

    async def _route(self, message: Message, left: list[int]) -> None:
        routed: list[tuple[int, Route]] = []
        failed: list[int] = []
        envelope = message.envelope
        verify = bool(envelope.flags & ContentFlag.PROBE)
        for index in left:
            try:
                route = await self.rewrite.resolve(envelope.recipients[index].address, envelope.sender, verify=verify)
            except ServiceLost as error:
                self.log.warning(f"{envelope.queue_id}: address resolver: {error}")
                failed.append(index)
                continue
            if route.failed:
                failed.append(index)
            else:
                routed.append((index, route))
        if failed:
            self.dispatcher.through_retry(message, failed, "4.3.0 address resolver failure")
        if routed:
            self._submit(message, routed)

    def _submit(self, message: Message, routed: list[tuple[int, Route]]) -> None:
        groups: dict[tuple[str, str], list[int]] = {}
        envelope = message.envelope
        for index, route in routed:
            recipient = envelope.recipients[index]
            if route.recipient != recipient.address:
                if not recipient.original:
                    recipient.original = recipient.address
                recipient.address = route.recipient
            if route.transport in self.settings.defer_transports:
                self.dispatcher.through_retry(message, [index], "4.3.2 deferred transport")
                continue
            groups.setdefault((route.transport, route.nexthop), []).append(index)
        if groups:
            self.dispatcher.submit(message, groups)

    def _spawn(self, work: object) -> None:
        self.run_soon(work)  # type: ignore[arg-type]

    # -- results ------------------------------------------------------------------------------------------------------

    def _finished(self, request: Request, results: list[RecipientResult]) -> None:
        message = request.message
        message.waiting -= len(request.indexes)
        sent: list[int] = []
        for result in results:
            index = request.indexes[result.index]
            finish.sort_result(message, index, result)
            if result.outcome == Outcome.SENT:
                sent.append(index)
        if message.waiting > 0:
            if sent and not message.dropped:
                self.mark_done(message, sent)
            return
        if message.dropped:
            self.remove(message, quiet=True)
        elif message.hold:
            self.mover.move(message, "hold", self._left(message))
        elif finish.is_simple(message):
            self.remove(message)
        else:
            if sent:
                self.mark_done(message, sent)
            self._spawn(finish.finish(self, message))

    def mark_done(self, message: Message, indexes: list[int]) -> None:
        """Note on disk that these recipients are finished."""
        try:
            self.store.finish(message.place, message.envelope, indexes, last=False)
        except OSError as error:
            self.log.warning(f"{message.envelope.queue_id}: mark recipients done: {error}")
        self._flush_soon()

    def remove(self, message: Message, *, quiet: bool = False) -> None:
        """The message is finished."""
        try:
            self.store.finish(message.place, message.envelope, [], last=True)
        except OSError as error:
            self.log.warning(f"{message.envelope.queue_id}: remove: {error}")
        self._flush_soon()
        if not quiet:
            self.log.info(f"{message.envelope.queue_id}: removed")
        self.forget(message)

    def defer(self, message: Message) -> None:
        """Some recipients are left for later."""
        message.moving = True
        self.mover.move(message, "deferred", [index for index, _ in message.deferred])

    def forget(self, message: Message) -> None:
        """The message leaves the active queue; there is room for the next one."""
        self.active.pop(message.envelope.queue_id, None)
        self.fill()

    def fill(self) -> None:
        """Take messages that had to wait: new ones first, then deferred ones that are due."""
        while self.backlog and len(self.active) < self.settings.active_limit:
            queue_id = next(iter(self.backlog))
            place, done = self.backlog.pop(queue_id)
            try:
                envelope = read_envelope(self.context.queue_directory, place)
            except (OSError, DamagedRecord) as error:
                self.log.warning(f"{place.segment}: {error}")
                continue
            self.activate(place, envelope, done)
        if len(self.active) < self.settings.active_limit:
            self.deferred.room()

    def moved(self, move: Move, message: Message) -> None:
        """A move to a file of its own has been made, or has failed."""
        self.store.moved(move)
        message.place = move.place
        self._flush_soon()
        if move.error is not None:
            self.log.warning(f"{message.envelope.queue_id}: save queue file: {move.error}")
            # Still safe where it was: try again when the disk has had time to recover.
            self.context.loop.call_later(self.settings.minimal_backoff_s, self._retry_move, message)
            return
        if message.dropped:  # deleted while it moved
            self.remove(message)
        elif message.released or (message.hold and move.queue != "hold"):  # put on hold while it moved
            self._again(message, move)
        else:
            self.forget(message)

    def _again(self, message: Message, move: Move) -> None:
        """A message that has just got a file of its own goes on from there."""
        queued = next((item for item in self.store.read_own(move.place.segment) if isinstance(item, Queued)), None)
        if queued is None:
            self.forget(message)
        elif message.released:
            self.activate(queued.place, queued.envelope, queued.done)
        else:
            held = Message(queued.place, queued.envelope, time.time(), 0, queued.done, hold=True)
            self.active[queued.envelope.queue_id] = held
            self.mover.move(held, "hold", self._left(held))

    def _retry_move(self, message: Message) -> None:
        if message.dropped:
            self.remove(message)
        elif message.hold:
            self.mover.move(message, "hold", self._left(message))
        elif message.released:
            self.mover.move(message, "deferred", self._left(message))
        else:
            self.defer(message)

    # -- housekeeping -------------------------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self.context.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        self.store.flush()

    def _sweep(self) -> None:
        self.store.sweep()
        self._sweeper = self.context.loop.call_later(_SWEEP_S, self._sweep)

    def rescan(self) -> None:
        """Look in ``incoming/`` for what nobody told us of, soon."""
        if self._rescan is None:
            self._rescan = self.context.loop.call_later(_RESCAN_DELAY_S, self._start_rescan)

    def _start_rescan(self) -> None:
        self._rescan = None
        if self._rescanning:
            self.rescan()
            return
        self._rescanning = True
        self._spawn(self._recover())

    async def _recover(self) -> None:
        try:
            for count, item in enumerate(self.store.recover_incoming(), 1):
                if isinstance(item, Queued):
                    self.arrived(item.place, item.envelope, item.done)
                else:
                    self._damaged(*item)
                if count % _RECOVER_AT_ONCE == 0:
                    await asyncio.sleep(0)
        finally:
            self._rescanning = False

    def _damaged(self, name: str, damage: Damage) -> None:
        try:
            if name.startswith("incoming/seg-"):
                saved = self.store.save_damage(name, damage)
            else:
                saved = self.store.set_aside(name)
        except OSError as error:
            self.log.error(f"{name}: damaged at {damage.offset} for {damage.length} bytes, cannot be saved: {error}")
            return
        self.log.error(f"{name}: damaged at {damage.offset} for {damage.length} bytes, saved as {saved}")

    def set_aside(self, name: str) -> None:
        """A file in the queue that is no message."""
        try:
            self.log.error(f"{name}: damaged queue file, saved as {self.store.set_aside(name)}")
        except OSError as error:
            self.log.error(f"{name}: damaged queue file: {error}")


