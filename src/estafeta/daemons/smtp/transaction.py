"""One delivery over one session: which recipients, what became of them, and what is kept for the next server.

Source: man 8 smtp; RFC 5321 section 4.2.5; man 5 postconf smtp_mx_session_limit. Invariants: a recipient gets at most
one result; with a server left to try (not ``final``) a temporary failure gives no result but a log line, and is
remembered in ``kept``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from estafeta.daemons.smtp.content import Readable
from estafeta.daemons.smtp.outgoing import Outgoing
from estafeta.daemons.smtp.trouble import Peer, Trouble, reply_trouble
from estafeta.delivery.report import Delivery
from estafeta.ipc.messages import (
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    ContentFlag,
    Place,
    Recipient,
)
from estafeta.protocol.smtp_client import Envelope, EnvelopeRecipient, Features, SmtpReply
from estafeta.protocol.smtp_client_commands import quote_address
from estafeta.protocol.smtp_client_phase import Phase
from estafeta.system.log import Log

_XTEXT = re.compile(rb"\+([0-9A-F]{2})")
_NOTIFY = ((NOTIFY_SUCCESS, b"SUCCESS"), (NOTIFY_FAILURE, b"FAILURE"), (NOTIFY_DELAY, b"DELAY"))


class Transaction:
    """See the module. ``on_over`` is called once, when the session has nothing more to say about it."""

    __slots__ = (
        "_failed",
        "action",
        "answered",
        "content_sent",
        "delivery",
        "envelope",
        "final",
        "indexes",
        "kept",
        "log",
        "on_over",
        "outgoing",
        "over",
        "peer",
        "probe",
        "quit_after",
        "stale",
        "started",
        "uses",
    )  # fmt: skip

    def __init__(
        self,
        delivery: Delivery,
        indexes: list[int],
        *,
        log: Log,
        final: bool,
        kept: dict[int, Trouble],
        quit_after: Callable[[], bool],
        on_over: Callable[[Transaction], None],
        outgoing: Outgoing | None = None,
    ) -> None:
        self.delivery = delivery
        self.indexes = indexes
        self.log = log
        self.final = final
        self.outgoing = outgoing
        """The message as it goes out, if that is not as it is in the queue."""
        self.kept = kept
        self._failed: set[int] = set()
        self.quit_after = quit_after
        self.on_over = on_over
        self.over = False
        self.stale = False
        self.answered = False  # the server has said something about a recipient
        """The kept session was dead: nothing happened, try again on a new one."""
        self.started = False
        """The server has answered something."""
        self.content_sent = False
        self.uses = 1
        self.probe = bool(delivery.request.envelope.flags & ContentFlag.TRACE)
        """sendmail -bv: ask about the recipients, send nothing."""
        self.action = "relayed"
        self.peer: Peer = Peer("", "", 0)
        self.envelope: Envelope = Envelope(b"", ())

    def source(self, queue: Readable) -> tuple[Readable, Place, bool]:
        """Where the content is (``queue`` reads the queue's), and whether no line of it starts with a dot."""
        changed = self.outgoing
        if changed is not None and changed.content is not None:
            return changed.content, changed.place, changed.dot_free
        request = self.delivery.request
        return queue, request.place, bool(request.envelope.flags & ContentFlag.NO_DOT_LINES)

    def prepare(self, peer: Peer, features: Features, uses: int, *, dummy_auth: bool, assume_final: bool) -> None:
        """Bind to the session that will carry it."""
        self.peer = peer
        self.uses = uses
        dsn = "dsn" in features.keywords
        # A server that took over the duty to report success does it itself.
        self.action = "" if dsn else ("delivered" if assume_final else "relayed")
        source = self.delivery.request.envelope
        flags = source.flags
        recipients = source.recipients
        sender = source.sender
        wanted = [_recipient(recipients[index], dsn) for index in self.indexes]
        if self.outgoing is not None:
            sender = self.outgoing.sender
            new = self.outgoing.recipients
            wanted = [replace(item, address=new[index]) for item, index in zip(wanted, self.indexes, strict=True)]
        self.envelope = Envelope(
            sender,
            wanted,
            size_bytes=source.size,
            eight_bit=bool(flags & ContentFlag.EIGHT_BIT),
            smtputf8=bool(flags & ContentFlag.SMTPUTF8),
            ret=source.ret.encode("ascii", "replace"),
            envid=_unxtext(source.envid) if source.envid else b"",
            auth_empty=dummy_auth,
        )

    # -- replies -------------------------------------------------------------------------------------------------------

    def sender_refused(self, reply: SmtpReply) -> None:
        """MAIL failed, and with it everybody."""
        self.fail_all(reply_trouble(self.peer, reply, Phase.MAIL))

    def recipient_refused(self, index: int, reply: SmtpReply) -> None:
        """RCPT number ``index`` of this transaction failed."""
        self._fail(self.indexes[index], reply_trouble(self.peer, reply, Phase.RCPT))

    def data_refused(self, reply: SmtpReply) -> None:
        """DATA failed for those who had been accepted."""
        self.fail_all(reply_trouble(self.peer, reply, Phase.DATA))

    def message_done(self, reply: SmtpReply, indexes: tuple[int, ...]) -> None:
        """The reply to the final dot, for the recipients ``indexes``."""
        if not reply.positive:
            trouble = reply_trouble(self.peer, reply, Phase.DOT)
            for index in indexes:
                self._fail(self.indexes[index], trouble, log_once=index == indexes[0])
            return
        dsn = reply.status
        text = reply.text
        relay = self.peer.relay
        delivery = self.delivery
        for index in indexes:
            delivery.sent(
                self.indexes[index], text, relay, dsn=dsn, mta=self.peer.host, diagnostic=text, action=self.action,
                uses=self.uses,
            )  # fmt: skip

    def fail_all(self, trouble: Trouble) -> None:
        """Everybody without a result, but for those who wait for the next server already."""
        first = True
        undecided = set(self.delivery.undecided)
        for index in self.indexes:
            if index in undecided and index not in self._failed:
                self._fail(index, trouble, log_once=first)
                first = False
        if trouble.throttle and trouble.temporary and self.final:
            self.delivery.site_dead(trouble.dsn, trouble.text)

    def _fail(self, index: int, trouble: Trouble, *, log_once: bool = True) -> None:
        delivery = self.delivery
        if trouble.temporary and not self.final:
            self._failed.add(index)
            self.kept[index] = trouble
            if log_once:
                self.log.line(f"{delivery.request.envelope.queue_id}: {trouble.text}", delivery.number)
            return
        report(delivery, index, trouble, self.uses)

    def end(self) -> None:
        """Nothing more will come."""
        if not self.over:
            self.over = True
            self.on_over(self)


def report(delivery: Delivery, index: int, trouble: Trouble, uses: int = 1) -> None:
    """Make ``trouble`` the result of one recipient."""
    give = delivery.deferred if trouble.temporary else delivery.bounced
    give(
        index, trouble.dsn, trouble.text, trouble.relay, mta=trouble.mta, diagnostic=trouble.diagnostic, uses=uses
    )  # fmt: skip


def _unxtext(value: bytes) -> bytes:
    return _XTEXT.sub(lambda match: bytes((int(match[1], 16),)), value) if b"+" in value else value


def _recipient(recipient: Recipient, dsn: bool) -> EnvelopeRecipient:
    if not dsn:
        return EnvelopeRecipient(recipient.address)
    orcpt = recipient.orcpt
    if orcpt:
        orcpt = _unxtext(orcpt)
    else:
        original = recipient.original or recipient.address
        orcpt = (b"rfc822;" if original.isascii() else b"utf-8;") + quote_address(original)
    return EnvelopeRecipient(recipient.address, notify_words(recipient.notify), orcpt)


def notify_words(notify: int) -> bytes:
    """The NOTIFY parameter; empty for none."""
    if not notify:
        return b""
    if notify & NOTIFY_NEVER:
        return b"NEVER"
    return b",".join(word for bit, word in _NOTIFY if notify & bit)
