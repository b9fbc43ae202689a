"""Requests in, safe messages out: the commit, the answer, the word to the queue manager."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass, field

from estafeta.daemons.cleanup import headers
from estafeta.daemons.cleanup.actions import redirect
from estafeta.daemons.cleanup.carriage_returns import without_bare_returns
from estafeta.daemons.cleanup.eight_bit import declares_eight_bit
from estafeta.daemons.cleanup.recipients import ExpansionTooLarge, Mapping
from estafeta.daemons.cleanup.settings import read_settings
from estafeta.ipc.channel import Channel, Connection
from estafeta.ipc.messages import (
    NOTIFY_NEVER,
    Arrived,
    Chunk,
    CleanupFlag,
    CleanupStatus,
    ContentFlag,
    Enqueue,
    EnqueueReply,
    Envelope,
    Hello,
    Message,
    Place,
    Recipient,
    Refused,
)
from estafeta.mail.queue_id import QueueIdMaker
from estafeta.service.content_checks import Decision, Inspection
from estafeta.service.content_tables import read_checks
from estafeta.service.daemon import Daemon
from estafeta.service.own_addresses import own_addresses
from estafeta.spool.journal import SEGMENT_AGE_S, Journal, LargeMessage
from estafeta.tables.table import LookupFailed

LARGE = 262144  # octets: a message beyond this gets a file of its own


@dataclass(slots=True)
class _Refusal(Exception):
    """The message is not taken."""

    status: CleanupStatus
    dsn: str = ""
    reason: str = ""


@dataclass(slots=True)
class _Stream:
    """A large message that is still coming in. ``file`` is None once it has failed: the rest is read and thrown away."""

    envelope: Envelope
    file: LargeMessage | None
    flags: int
    refusal: _Refusal | None = None
    inspection: Inspection | None = None  # set while the body may still be of interest
    pending: list[Chunk] = field(default_factory=list)
    ready: bool = False
    number: int = 0  # of the request that waits for the answer


class Cleanup(Daemon):
    """cleanup(8)."""

    qmgr: Channel
    journal: Journal

    def prepare(self) -> None:
        options = self.table_options()
        self.settings = read_settings(self.config, options, own_addresses(self.config))
        self.mapping = Mapping(self.settings)
        self.checks = read_checks(self.config, options)
        self._streams: dict[tuple[Connection, int], _Stream] = {}
        self.ids = QueueIdMaker(os.getpid(), time.time_ns, long=self.settings.long_queue_ids)
        self._work_in_hand = 0

    async def start(self) -> None:
        loop = self.context.loop
        self.journal = Journal(self.context.queue_directory, loop.call_soon, loop.call_soon_threadsafe)
        self.qmgr = self.context.channel("qmgr", on_connect=lambda: Hello(os.getpid()))
        self._age()

    def _age(self) -> None:
        self.journal.rotate_if_old()
        self._age_timer = self.context.loop.call_later(SEGMENT_AGE_S / 2, self._age)

    async def stop(self) -> None:
        self._age_timer.cancel()
        self.journal.close()
        for stream in self._streams.values():
            if stream.file is not None:
                stream.file.abort()

    def is_busy(self) -> bool:
        return self.context.clients > 0 or self._work_in_hand > 0

    def in_hand(self) -> bool:
        return self._work_in_hand > 0  # what will be in the queue in a moment should be acknowledged, too

    def on_lost(self, connection: Connection) -> None:
        for key in [key for key in self._streams if key[0] is connection]:
            stream = self._streams.pop(key)
            if stream.file is not None:
                stream.file.abort()

    def on_message(self, connection: Connection, number: int, message: Message) -> None:
        if isinstance(message, Enqueue):
            clean = without_bare_returns(message.content, message.lines)
            if clean is not message.content:
                message.content, message.dots = clean, True
            if message.more:
                stream = _Stream(message.envelope, None, message.flags)
                self._streams[connection, message.stream] = stream
                self.run_soon(self._begin_stream(connection, stream, message))
            else:
                self.run_soon(self._whole(connection, number, message))
        elif isinstance(message, Chunk):
            clean = without_bare_returns(message.data, message.lines)
            if clean is not message.data:
                message.data, message.dots = clean, True
            found = self._streams.get((connection, message.stream))
            if found is None:
                if message.last:
                    connection.reply(number, EnqueueReply(CleanupStatus.WRITE_ERROR, ""))
                return
            if message.last:
                found.number = number
            if not found.ready:
                found.pending.append(message)
            elif found.inspection is not None and found.inspection.wants_body:
                found.ready = False
                found.pending.append(message)
                self.run_soon(self._go_on(connection, found))
            else:
                self._chunk(connection, found, message)
        else:
            connection.reply(number, Refused("cleanup: unknown request"))

    # -- small messages -----------------------------------------------------------------------------------------------

    async def _whole(self, connection: Connection, number: int, message: Enqueue) -> None:
        envelope = message.envelope
        try:
            inspection = self._inspection(message)
            head, body_start = await self._process(message, inspection)
            if inspection is None:
                content = head + message.content[body_start:]
                self._measure(envelope, content, dots=message.dots)
            else:
                body = message.content[body_start:]
                if inspection.wants_body:
                    body = await inspection.body(body, last=True)
                content = head + body
                self._measure(envelope, content, dots=True)
                if not await self._decide(envelope, inspection.decision, message.flags):
                    connection.reply(number, EnqueueReply(CleanupStatus.DISCARDED, envelope.queue_id))
                    return
            if self.settings.message_size_limit and len(content) > self.settings.message_size_limit:
                self.log.warning(f"{envelope.queue_id}: queue file size limit exceeded")
                raise _Refusal(CleanupStatus.TOO_BIG)
        except _Refusal as refusal:
            connection.reply(number, EnqueueReply(refusal.status, envelope.queue_id, refusal.reason, refusal.dsn))
            return
        except LookupFailed as error:
            self.log.warning(f"{envelope.queue_id}: {error}")
            connection.reply(number, EnqueueReply(CleanupStatus.WRITE_ERROR, envelope.queue_id))
            return
        if len(content) > LARGE:
            file = self._open_large(envelope)
            if isinstance(file, OSError):
                self._answer(connection, number, envelope, None, file)
                return
            try:
                file.write(content)
            except OSError as error:
                file.abort()
                self._answer(connection, number, envelope, None, error)
                return
            await self._commit_large(connection, number, envelope, file)
            return
        self._work_in_hand += 1

        def safe(place: Place | None, error: OSError | None) -> None:
            self._work_in_hand -= 1
            self._answer(connection, number, envelope, place, error)

        self.journal.add(envelope, content, safe)

    def _measure(self, envelope: Envelope, content: bytes, *, dots: bool) -> None:
        if self.settings.detect_eight_bit and declares_eight_bit(content):
            envelope.flags |= ContentFlag.EIGHT_BIT
        envelope.size = len(content)
        if not dots or (b"\r\n." not in content and not content.startswith(b".")):
            envelope.flags |= ContentFlag.NO_DOT_LINES

    def _answer(
        self, connection: Connection, number: int, envelope: Envelope, place: Place | None, error: OSError | None
    ) -> None:
        if place is not None:
            connection.reply(number, EnqueueReply(CleanupStatus.OK, envelope.queue_id))
            self.qmgr.notify(Arrived(place, envelope))
            return
        full = error is not None and error.errno in (errno.ENOSPC, errno.EDQUOT)
        self.log.warning(f"{envelope.queue_id}: write queue file: {error}")
        status = CleanupStatus.NO_SPACE if full else CleanupStatus.WRITE_ERROR
        connection.reply(number, EnqueueReply(status, envelope.queue_id))

    def _inspection(self, message: Enqueue) -> Inspection | None:
        """The content checks of a message that is to have them."""
        if not self.checks or not message.flags & CleanupFlag.FILTER:
            return None
        envelope = message.envelope
        if not envelope.queue_id:
            envelope.queue_id = self.ids.next()
        return Inspection(self.checks, envelope, self.log.info, self.log.warning)

    async def _decide(self, envelope: Envelope, decision: Decision, flags: int) -> bool:
        """Do what the content checks want done with the whole message; False: throw it away. Raises _Refusal, LookupFailed."""
        if decision.rejected is not None:
            raise _Refusal(CleanupStatus.REJECTED, *decision.rejected)
        if decision.discard:
            return False
        envelope.hold = envelope.hold or decision.hold
        if decision.content_filter:
            envelope.content_filter = decision.content_filter
        if decision.copies:
            copies = [Recipient(address, b"", NOTIFY_NEVER) for address in decision.copies]
            try:
                envelope.recipients = await self._mapped(envelope, envelope.recipients, copies, flags)
            except ExpansionTooLarge as error:
                self.log.warning(f"{envelope.queue_id}: {error}")
                raise _Refusal(CleanupStatus.EXPANSION) from None
        if decision.redirect:
            last = envelope.recipients[-1]
            try:
                address = await self.mapping.recipient(decision.redirect)
            except ExpansionTooLarge as error:
                self.log.warning(f"{envelope.queue_id}: {error}")
                raise _Refusal(CleanupStatus.EXPANSION) from None
            envelope.recipients = [Recipient(address, last.original or last.address, last.notify, last.orcpt)]
            envelope.content_filter = ""
        return True

    async def _process(self, message: Enqueue, inspection: Inspection | None) -> tuple[bytes, int]:
        """Complete the envelope in place; the new header block and where the body starts. Raises _Refusal, LookupFailed."""
        try:
            return await self._completed(message, inspection)
        except ExpansionTooLarge as error:
            self.log.warning(f"{message.envelope.queue_id}: {error}")
            raise _Refusal(CleanupStatus.EXPANSION) from None

    async def _completed(self, message: Enqueue, inspection: Inspection | None) -> tuple[bytes, int]:
        envelope = message.envelope
        settings = self.settings
        if not envelope.queue_id:
            envelope.queue_id = self.ids.next()
        remote = envelope.rewrite_context == "remote"
        result = await headers.process(
            settings, self.mapping, envelope, message.content, message.received, remote=remote, inspection=inspection
        )
        self.log.info(f"{envelope.queue_id}: message-id={result.message_id}")
        if result.hops + bool(message.received) >= settings.hopcount_limit:  # our own header counts
            self.log.info(f"{envelope.queue_id}: reject: too many hops")
            raise _Refusal(CleanupStatus.HOPS)
        await self._recipients(envelope, message.flags)
        if message.flags & CleanupFlag.DISCARD:
            raise _Refusal(CleanupStatus.DISCARDED)
        redirect(envelope)
        return result.block, result.body_start

    async def _recipients(self, envelope: Envelope, flags: int) -> None:
        mapping = self.mapping
        if envelope.sender:
            envelope.sender = await mapping.sender(envelope.sender)
        envelope.recipients = await self._mapped(envelope, [], envelope.recipients, flags)
        if not envelope.recipients:
            raise _Refusal(CleanupStatus.NO_RECIPIENTS)

    async def _mapped(
        self, envelope: Envelope, known: list[Recipient], more: list[Recipient], flags: int
    ) -> list[Recipient]:
        """``known`` recipients and the mapped form of some ``more``; copies are made for the first ones only."""
        mapping = self.mapping
        maps = flags & CleanupFlag.MAP
        recipients: list[Recipient] = []
        for recipient in more:
            original = recipient.address
            if maps:
                recipient.address = await mapping.recipient(original)
                if not recipient.original:
                    recipient.original = original if recipient.address != original else b""
            recipients.append(recipient)
        if flags & CleanupFlag.BCC and not known:
            recipients.extend(await mapping.copies(envelope.sender, recipients))
        if maps and self.settings.virtual_alias:
            expanded: list[Recipient] = []
            for recipient in recipients:
                expanded.extend(await mapping.expand(recipient))
            recipients = expanded
        recipients = known + recipients
        return mapping.without_duplicates(recipients) if len(recipients) > 1 else recipients

    # -- large messages -----------------------------------------------------------------------------------------------

    def _open_large(self, envelope: Envelope) -> LargeMessage | OSError:
        try:
            return LargeMessage(self.context.queue_directory, envelope.queue_id, envelope)
        except OSError as error:
            return error

    async def _begin_stream(self, connection: Connection, stream: _Stream, message: Enqueue) -> None:
        try:
            inspection = stream.inspection = self._inspection(message)
            head, body_start = await self._process(message, inspection)
            file = self._open_large(stream.envelope)
            if isinstance(file, OSError):
                raise self._disk_refusal(stream.envelope, file)
            stream.file = file
            stream.envelope.flags |= ContentFlag.NO_DOT_LINES
            if inspection is not None and inspection.wants_body:
                body = await inspection.body(message.content[body_start:], last=False)
                self._write(stream, head + body, dots=True)
            else:
                self._write(stream, head + message.content[body_start:], dots=message.dots)
        except _Refusal as refusal:
            stream.refusal = refusal
        except LookupFailed as error:
            self.log.warning(f"{stream.envelope.queue_id}: {error}")
            stream.refusal = _Refusal(CleanupStatus.WRITE_ERROR)
        await self._go_on(connection, stream)

    async def _go_on(self, connection: Connection, stream: _Stream) -> None:
        """The chunks that came while something was waited for; then the stream is ready for more."""
        while stream.pending:
            chunk = stream.pending.pop(0)
            inspection = stream.inspection
            if inspection is not None and inspection.wants_body and stream.refusal is None and not chunk.abort:
                try:
                    chunk.data = await inspection.body(chunk.data, last=chunk.last)
                except LookupFailed as error:
                    self.log.warning(f"{stream.envelope.queue_id}: {error}")
                    stream.refusal = _Refusal(CleanupStatus.WRITE_ERROR)
                chunk.dots = True
            self._chunk(connection, stream, chunk)
        stream.ready = True

    def _disk_refusal(self, envelope: Envelope, error: OSError) -> _Refusal:
        self.log.warning(f"{envelope.queue_id}: write queue file: {error}")
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return _Refusal(CleanupStatus.NO_SPACE if full else CleanupStatus.WRITE_ERROR)

    def _write(self, stream: _Stream, data: bytes, *, dots: bool) -> None:
        file = stream.file
        if file is None or not data:
            return
        if dots and (b"\r\n." in data or data.startswith(b".")):
            stream.envelope.flags &= ~ContentFlag.NO_DOT_LINES
        if self.settings.detect_eight_bit and declares_eight_bit(data):
            stream.envelope.flags |= ContentFlag.EIGHT_BIT
        try:
            file.write(data)
        except OSError as error:
            file.abort()
            stream.file = None
            stream.refusal = self._disk_refusal(stream.envelope, error)

    def _chunk(self, connection: Connection, stream: _Stream, chunk: Chunk) -> None:
        if chunk.abort:
            self._streams.pop((connection, chunk.stream), None)
            if stream.file is not None:
                stream.file.abort()
            return
        if stream.refusal is None:
            self._write(stream, chunk.data, dots=chunk.dots)
        if not chunk.last:
            return
        self._streams.pop((connection, chunk.stream), None)
        envelope = stream.envelope
        if stream.file is None or stream.refusal is not None:
            refusal = stream.refusal or _Refusal(CleanupStatus.WRITE_ERROR)
            reply = EnqueueReply(refusal.status, envelope.queue_id, refusal.reason, refusal.dsn)
            connection.reply(stream.number, reply)
            return
        envelope.size = stream.file.content_length
        self.run_soon(self._finish_stream(connection, stream, stream.file))

    async def _finish_stream(self, connection: Connection, stream: _Stream, file: LargeMessage) -> None:
        envelope = stream.envelope
        if stream.inspection is not None:
            reply = EnqueueReply(CleanupStatus.DISCARDED, envelope.queue_id)
            try:
                kept = await self._decide(envelope, stream.inspection.decision, stream.flags)
            except _Refusal as refusal:
                kept, reply = False, EnqueueReply(refusal.status, envelope.queue_id, refusal.reason, refusal.dsn)
            except LookupFailed as error:
                self.log.warning(f"{envelope.queue_id}: {error}")
                kept, reply = False, EnqueueReply(CleanupStatus.WRITE_ERROR, envelope.queue_id)
            if not kept:
                file.abort()
                connection.reply(stream.number, reply)
                return
        await self._commit_large(connection, stream.number, envelope, file)

    async def _commit_large(
        self, connection: Connection, number: int, envelope: Envelope, file: LargeMessage
    ) -> None:
        """Syncing megabytes takes a while: in a thread, one hop a large message."""
        self._work_in_hand += 1
        try:
            place = await self.context.loop.run_in_executor(None, file.commit, envelope)
        except OSError as error:
            self._answer(connection, number, envelope, None, error)
        else:
            self._answer(connection, number, envelope, place, None)
        finally:
            self._work_in_hand -= 1
