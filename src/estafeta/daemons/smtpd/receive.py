"""Content on its way: DATA and BDAT, limits, the Received header, the hand-over to cleanup.

Source: RFC 5321 section 4.1.1.4, RFC 3030. A message that fits goes to cleanup as one request; a larger one streams while it
comes in. The 250 is sent when cleanup says that the message is safe, never before.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from estafeta.daemons.smtpd import proxied
from estafeta.daemons.smtpd.access import Actions
from estafeta.daemons.smtpd.event_line import event_line
from estafeta.daemons.smtpd.received_line import received_header
from estafeta.daemons.smtpd.stages import check
from estafeta.daemons.smtpd.transaction import Transaction
from estafeta.ipc.channel import ServiceLost
from estafeta.ipc.messages import (
    NOTIFY_NEVER,
    Chunk,
    CleanupFlag,
    CleanupStatus,
    ContentFlag,
    Enqueue,
    EnqueueReply,
    Envelope,
    Message,
    Recipient,
)
from estafeta.mail.text import to_bytes
from estafeta.protocol.smtp_server import ChunkContent, Command, Content, State
from estafeta.tables.table import LookupFailed

if TYPE_CHECKING:
    from estafeta.daemons.smtpd.session import Session

STREAM_FROM = 262144  # octets: a message beyond this streams

_OLD_ERROR = b"told"

_REPLIES = {
    CleanupStatus.REJECTED: (550, "5.7.1", "message content rejected"),
    CleanupStatus.TOO_BIG: (552, "5.3.4", "Error: message file too big"),
    CleanupStatus.NO_SPACE: (452, "4.3.1", "Insufficient system storage"),
    CleanupStatus.WRITE_ERROR: (451, "4.3.0", "Error: queue file write error"),
    CleanupStatus.EXPANSION: (451, "4.6.0", "Alias expansion error"),
    CleanupStatus.HOPS: (554, "5.4.0", "Error: too many hops"),
    CleanupStatus.NO_RECIPIENTS: (550, "5.1.0", "No recipients specified"),
}


async def data_command(session: Session, command: Command) -> None:
    """DATA."""
    if command.argument:
        session.failed(b"DATA", b"501 5.5.4 Syntax: DATA")
        return
    if session.service.access.has("data"):
        verdict = await check(session, "data", "DATA")
        if verdict is not None:
            session.failed(b"DATA", verdict.reply)
            return
    transaction = session.transaction
    if transaction is not None and transaction.proxy is not None:
        refusal = await proxied.begin(session, transaction, transaction.proxy)
        if session.closed:
            return
        if refusal:
            session.failed(b"DATA", refusal)
            return
    session.ok(b"DATA", b"354 End data with <CR><LF>.<CR><LF>")


async def bdat_command(session: Session, command: Command) -> None:
    """BDAT size [LAST]; its octets follow, wanted or not. After an error all chunks are thrown away up to the last."""
    if not session.service.settings.chunking:
        session.failed(b"BDAT", b"521 5.5.1 Error: command not implemented")
        session.flush()
        session.close()
        return
    words = command.argument.upper().split()
    if not words or not words[0].isdigit() or len(words[0]) > 18 or len(words) > 2 or (len(words) == 2 and words[1] != b"LAST"):
        queue_id = session.transaction.queue_id if session.transaction and session.transaction.queue_id else "NOQUEUE"
        session.warning(f"{queue_id}: malformed BDAT command syntax from {session.where}: "
                        f"{command.line[:100].decode('latin-1')}")  # fmt: skip
        session.failed(b"BDAT", b"521 5.5.4 Syntax: BDAT count [LAST]")
        session.flush()
        session.close()
        return
    session.counts["bdat"] += 1
    size, last = int(words[0]), len(words) == 2
    if not size and not last:
        queue_id = session.transaction.queue_id if session.transaction is not None else "NOQUEUE"
        session.warning(f"{queue_id or 'NOQUEUE'}: null BDAT request from {session.where}")
        session.bdat_error = _OLD_ERROR
        session.machine.refuse_empty_chunk()
        session.refuse_chunk(b"551 5.7.1 Null BDAT request")
        return
    if not session.bdat_error:
        session.bdat_error = await _objection(session, size)
        if session.closed:
            return
    session.machine.expect_chunk(size, last)


async def _objection(session: Session, size: int) -> bytes:
    """What there is to say against a chunk of ``size`` octets, empty for nothing. The restrictions are asked with the first one."""
    machine = session.machine
    if not machine.allows(b"BDAT"):
        return machine.order_error(b"BDAT")
    transaction = session.transaction
    assert transaction is not None
    is_first = machine.state is not State.BDAT
    if is_first and session.service.access.has("data"):
        verdict = await check(session, "data", "BDAT")
        if verdict is not None:
            return verdict.reply
    if 0 < session.service.settings.message_size_limit < transaction.size + size:
        session.warning(f"{transaction.queue_id}: BDAT request from {session.where} exceeds message size limit")
        return b"552 5.3.4 Chunk exceeds message size limit"
    if is_first and transaction.proxy is not None:
        return await proxied.begin(session, transaction, transaction.proxy)
    return b""


async def content(session: Session, event: Content | ChunkContent) -> None:
    """A piece of content came."""
    if isinstance(event, ChunkContent) and session.bdat_error:
        _thrown_away(session, event)
        return
    transaction = session.transaction
    assert transaction is not None
    data = event.data
    transaction.size += len(data)
    limit = session.service.settings.message_size_limit
    if limit and transaction.size > limit and not transaction.too_big:
        transaction.too_big = True
        transaction.parts.clear()
        abort(session, transaction)
    if isinstance(event, Content):
        last = event.last
    else:
        last = event.end and event.last
        if data:
            transaction.open_line = not data.endswith(b"\n")
    if event.bare_newline:
        transaction.bare_newline = True
    transaction.lines += event.lines
    if event.dots:
        transaction.dots = True
    if not transaction.too_big and not transaction.broken and data:
        if transaction.proxy is not None:
            await transaction.proxy.content(data)
            if session.closed:
                return
        else:
            transaction.parts.append(data)
        if not last and transaction.size > STREAM_FROM and transaction.proxy is None:
            await _stream(session, transaction)
    if isinstance(event, ChunkContent) and event.end and not last:
        session.counts["bdat/ok"] += 1
        if transaction.too_big:
            session.reply(b"552 5.3.4 Error: message file too big")
        else:
            session.reply(f"250 2.0.0 Ok: {transaction.size} bytes".encode())
    elif last:
        await _end(session, transaction, "bdat" if isinstance(event, ChunkContent) else "data")


def _thrown_away(session: Session, event: ChunkContent) -> None:
    """A piece of a chunk behind an error. The first such chunk gets the error itself for an answer."""
    session.bdat_discarded += len(event.data)
    if not event.end:
        return
    size, session.bdat_discarded = session.bdat_discarded, 0
    if session.bdat_error != _OLD_ERROR:
        reply, session.bdat_error = session.bdat_error, _OLD_ERROR
    else:
        reply = f"551 5.0.0 Discarded {size} bytes after earlier error".encode()
    if event.last:
        session.end_transaction()
    session.refuse_chunk(reply)
    if reply[:4] in (b"421 ", b"521 "):  # access(5): say so and hang up
        session.flush()
        session.close()


async def _stream(session: Session, transaction: Transaction) -> None:
    channel = session.service.cleanup
    data = b"".join(transaction.parts)
    transaction.parts.clear()
    lines, dots = transaction.lines, transaction.dots
    transaction.lines, transaction.dots = 0, False
    if not transaction.stream:
        try:
            link = await channel.stream()
        except ServiceLost as error:
            session.warning(f"{transaction.queue_id}: {error}")
            transaction.broken = True
            return
        transaction.link = link
        transaction.stream = session.service.next_stream()
        link.notify(_request(session, transaction, data, lines, dots=dots, stream=transaction.stream))
    else:
        assert transaction.link is not None
        transaction.link.notify(Chunk(transaction.stream, data, False, False, lines, dots))
    await transaction.link.drain()


def abort(session: Session, transaction: Transaction) -> None:
    """Tell cleanup to throw a streamed message away."""
    stream, transaction.stream = transaction.stream, 0
    link, transaction.link = transaction.link, None
    if stream and link is not None:
        link.notify(Chunk(stream, b"", abort=True))
        session.service.cleanup.end_stream(link)


def _request(
    session: Session, transaction: Transaction, data: bytes, lines: int, *, dots: bool, stream: int = 0
) -> Enqueue:
    service = session.service
    facts = session.facts
    flags = transaction.flags
    if transaction.eight_bit:
        flags |= ContentFlag.EIGHT_BIT
    envelope = Envelope(
        transaction.queue_id,
        transaction.arrived_at,
        transaction.sender,
        transaction.recipients,
        0,
        int(flags),
        transaction.envid,
        transaction.ret,
        facts.client_name,
        facts.client_address,
        session.port,
        session.helo,
        session.protocol,
        transaction.content_filter or service.settings.content_filter,
    )
    envelope.reverse_client_name = session.reverse_name
    envelope.rewrite_context = "local" if session.local_client else "remote"
    envelope.hold = transaction.hold
    if facts.sasl_username:
        envelope.sasl_method, envelope.sasl_username = facts.sasl_method, facts.sasl_username
        envelope.sasl_sender = facts.sasl_sender
    if session.forwarded is not None:
        session.forwarded.fill(envelope)
    received = received_header(session, transaction)
    cleanup_flags = service.cleanup_flags
    actions = facts.actions
    if actions is not None:
        cleanup_flags, received = _act(actions, envelope, cleanup_flags, received)
    return Enqueue(envelope, data, cleanup_flags, received, bool(stream), stream, True, lines, dots)


def _act(actions: Actions, envelope: Envelope, flags: int, received: bytes) -> tuple[int, bytes]:
    """Have the actions of access tables take effect (access(5) OTHER ACTIONS)."""
    envelope.hold = envelope.hold or actions.hold
    if actions.filter:
        envelope.content_filter = actions.filter
    envelope.redirect = to_bytes(actions.redirect)
    if actions.bcc:
        copies = [Recipient(to_bytes(address), notify=NOTIFY_NEVER) for address in actions.bcc]
        envelope.recipients = [*envelope.recipients, *copies]
    if actions.discard:
        flags |= CleanupFlag.DISCARD
    return flags, actions.prepended + received


async def _may_send_bare_newlines(session: Session) -> bool:
    try:
        return await session.service.local_clients.may_send_bare_newlines(session.facts)
    except LookupFailed as error:
        session.warning(str(error))
        return False


async def _end(session: Session, transaction: Transaction, verb: str) -> None:
    """The message is complete: have it made safe, answer."""
    service = session.service
    if transaction.too_big:
        session.counts[verb + "/ok"] -= verb == "data"
        if transaction.proxy is not None:
            proxied.log_too_big(session, transaction)
        else:
            session.warning(f"{transaction.queue_id}: queue file size limit exceeded")
        _answer_too_big(session, verb)
        return
    if transaction.bare_newline and service.settings.bare_newline_reply and not await _may_send_bare_newlines(session):
        session.info(event_line(session, "END-OF-MESSAGE", "reject", "bare <LF> received"))
        abort(session, transaction)
        session.end_transaction()
        session.reply(service.settings.bare_newline_reply)
        return
    if service.access.has("end_of_data"):
        verdict = await check(session, "end_of_data", "END-OF-MESSAGE")
        if verdict is not None:
            abort(session, transaction)
            session.end_transaction()
            session.counts[verb + "/ok"] -= verb == "data"
            session.errors += 1
            session.reply(verdict.reply)
            if verdict.hangs_up:
                session.flush()
                session.close()
            return
    if transaction.proxy is not None:
        await proxied.end(session, transaction, transaction.proxy, verb)
        return
    data = b"".join(transaction.parts) if len(transaction.parts) != 1 else transaction.parts[0]
    reply: Message
    try:
        if transaction.broken:
            raise ServiceLost("cleanup service is not there")
        if transaction.stream and transaction.link is not None:
            link, transaction.link = transaction.link, None
            last = Chunk(transaction.stream, data, True, False, transaction.lines, transaction.dots)
            transaction.stream = 0
            try:
                reply = await service.cleanup.call(last, link)
            finally:
                service.cleanup.end_stream(link)
        else:
            reply = await service.cleanup.call(_request(session, transaction, data, transaction.lines, dots=transaction.dots))
    except ServiceLost as error:
        service.log.warning(f"{transaction.queue_id}: {error}", session.number)
        reply = EnqueueReply(CleanupStatus.WRITE_ERROR, transaction.queue_id)
    if session.closed:
        return
    if verb == "bdat":
        session.counts["bdat/ok"] += 1
    session.end_transaction()
    assert isinstance(reply, EnqueueReply)
    if reply.status in (CleanupStatus.OK, CleanupStatus.DISCARDED):
        session.forgive()
        size = b"%d bytes " % (transaction.size + 2 * transaction.open_line) if verb == "bdat" else b""
        session.reply(b"250 2.0.0 Ok: " + size + b"queued as " + reply.queue_id.encode())
        return
    code, dsn, text = _REPLIES.get(CleanupStatus(reply.status), _REPLIES[CleanupStatus.WRITE_ERROR])
    if reply.dsn:
        dsn = reply.dsn
        if reply.status == CleanupStatus.REJECTED and dsn.startswith("4"):
            code = 451
    session.errors += 1
    session.counts[verb + "/ok"] -= 1
    session.reply(to_bytes(f"{code} {dsn} {reply.reason or text}"))


def _answer_too_big(session: Session, verb: str) -> None:
    session.end_transaction()
    session.errors += 1
    session.reply(b"552 5.3.4 Error: message file too big")


def now() -> float:
    """Unix time (a seam for tests)."""
    return time.time()
