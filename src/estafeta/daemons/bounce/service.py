"""Who is told what: senders of failures, delays and successes; the postmaster when notify_classes says so.

Source: bounce(8), postconf(5) notify_classes, RFC 3461 section 5 and 6. A notice has the null sender and is never answered by
one; what the postmaster gets comes from double_bounce_sender and dies silently when it cannot be delivered.
Invariant: ``ok`` is said only when cleanup has the notice safe, or when none is called for.
"""

from __future__ import annotations

import os
import time

from estafeta.clients.cleanup import CleanupClient
from estafeta.daemons.bounce.settings import Settings, read_settings
from estafeta.ipc.channel import Connection, ServiceLost
from estafeta.ipc.messages import (
    CleanupFlag,
    CleanupStatus,
    ContentFlag,
    Envelope,
    Message,
    Notice,
    NoticeKind,
    NoticeReply,
    Outcome,
    Recipient,
    Refused,
)
from estafeta.mail import dsn_report
from estafeta.mail.date import rfc5322_date
from estafeta.mail.dsn_report import Report, Reported
from estafeta.mail.header import split_headers
from estafeta.mail.queue_id import QueueIdMaker
from estafeta.mail.text import to_bytes, to_text
from estafeta.service.daemon import Daemon
from estafeta.spool.content import ContentReader

HEADERS_READ = 262144  # octets of the original that are read when only its headers go back

_TEMPLATES = {
    NoticeKind.FAILURE: "failure_template",
    NoticeKind.DELAY: "delay_template",
    NoticeKind.SUCCESS: "success_template",
}
_LOG = {
    NoticeKind.FAILURE: "non-delivery notification",
    NoticeKind.DELAY: "delay notification",
    NoticeKind.SUCCESS: "delivery status notification",
}


class Bounce(Daemon):
    """bounce(8)."""

    max_workers = 1

    settings: Settings
    cleanup: CleanupClient

    def prepare(self) -> None:
        self.settings = read_settings(self.config, self.log.warning)
        self.ids = QueueIdMaker(os.getpid(), time.time_ns, long=self.settings.long_queue_ids)

    async def start(self) -> None:
        self.reader = ContentReader(self.context.queue_directory)
        self.cleanup = CleanupClient(self.context.channel("cleanup"))

    async def stop(self) -> None:
        self.reader.close()

    def on_message(self, connection: Connection, number: int, message: Message) -> None:
        if isinstance(message, Notice):
            self.answer(connection, number, self._notice(message))
        else:
            connection.reply(number, Refused("bounce: unknown request"))

    async def _notice(self, notice: Notice) -> Message:
        settings = self.settings
        kind = NoticeKind(notice.kind)
        sender = notice.envelope.sender
        try:
            if is_double_bounce(settings, sender):
                if kind == NoticeKind.FAILURE:
                    self.log.warning(f"{notice.envelope.queue_id}: undeliverable postmaster notification discarded")
                return NoticeReply(True)
            if not sender:
                if kind == NoticeKind.FAILURE and "2bounce" in settings.notify_classes:
                    recipient = settings.double_bounce_recipient
                    return NoticeReply(True, await self._to_postmaster(notice, kind, recipient, full=True))
                return NoticeReply(True)
            queue_id = await self._to_sender(notice, kind)
        except (ServiceLost, _NotTaken) as error:
            self.log.warning(f"{notice.envelope.queue_id}: {_LOG[kind]}: {error}")
            return NoticeReply(False)
        copy_to = ""
        if kind == NoticeKind.FAILURE and "bounce" in settings.notify_classes:
            copy_to = settings.bounce_recipient
        elif kind == NoticeKind.DELAY and "delay" in settings.notify_classes:
            copy_to = settings.delay_recipient
        if copy_to:
            try:
                await self._to_postmaster(notice, kind, copy_to, full=False)
            except (ServiceLost, _NotTaken) as error:  # the sender knows; a copy is not worth telling them again
                self.log.warning(f"{notice.envelope.queue_id}: postmaster {_LOG[kind]}: {error}")
        return NoticeReply(True, queue_id)

    async def _to_sender(self, notice: Notice, kind: NoticeKind) -> str:
        settings = self.settings
        envelope = notice.envelope
        name = _TEMPLATES[kind]
        if envelope.flags & (ContentFlag.TRACE | ContentFlag.VERBOSE_TRACE) and kind == NoticeKind.SUCCESS:
            name = "verify_template"
        template = settings.templates[name]
        full = kind == NoticeKind.FAILURE and envelope.ret != "HDRS"
        report = self._report(notice, kind, envelope.sender, template.subject, full=full)
        report.text = settings.texts[name]
        report.header_from = self._from(template.sender)
        if template.charset.lower() != "us-ascii":
            report.charset = template.charset
        queue_id = await self._enqueue(notice, report, b"", envelope.sender)
        self.log.info(f"{envelope.queue_id}: sender {_LOG[kind]}: {queue_id}")
        return queue_id

    async def _to_postmaster(self, notice: Notice, kind: NoticeKind, recipient: str, *, full: bool) -> str:
        settings = self.settings
        template = settings.templates[_TEMPLATES[kind]]
        address = to_bytes(recipient)
        shown = address if b"@" in address else address + b"@" + to_bytes(settings.myorigin)
        report = self._report(notice, kind, shown, template.postmaster_subject or template.subject, full=full)
        report.auto_submitted = "auto-generated"
        report.header_from = self._from(template.sender)
        queue_id = await self._enqueue(notice, report, double_bounce_address(settings), address)
        self.log.info(f"{notice.envelope.queue_id}: postmaster {_LOG[kind]}: {queue_id}")
        return queue_id

    def _from(self, value: str) -> str:
        return dsn_report.standard_from(value, self.settings.myorigin) if self.settings.standard_from else value

    def _report(self, notice: Notice, kind: NoticeKind, to: bytes, subject: str, *, full: bool) -> Report:
        settings = self.settings
        envelope = notice.envelope
        sender = envelope.sender or b"MAILER-DAEMON@" + to_bytes(settings.myorigin)
        returned, whole = self._original(notice, full=full)
        if kind == NoticeKind.SUCCESS:
            part = "Message Headers"
        else:
            part = "Undelivered Message" if whole else "Undelivered Message Headers"
        report = Report(
            queue_id=envelope.queue_id,
            sender=sender,
            arrived_at=envelope.arrived_at,
            now=time.time(),
            to=to,
            subject=subject,
            header_from="",
            text="",
            myhostname=settings.myhostname,
            mail_name=settings.mail_name,
            recipients=reported(notice, kind),
            charset="utf-8" if settings.smtputf8 else "us-ascii",
            eight_bit=settings.smtputf8 or bool(envelope.flags & ContentFlag.EIGHT_BIT) or not returned.isascii(),
            utf8=bool(envelope.flags & ContentFlag.SMTPUTF8),
            envid=envelope.envid,
            retry_until=envelope.arrived_at + settings.lifetime_s if kind == NoticeKind.DELAY else 0.0,
            part=part,
            returned=returned,
            headers_only=not whole,
        )
        if settings.threaded:
            report.extra_headers = thread_headers(returned)
        return report

    def _original(self, notice: Notice, *, full: bool) -> tuple[bytes, bool]:
        """The original as far as it goes back, and whether that is all of it. A notice without it is better than none."""
        limit = self.settings.size_limit
        place = notice.place
        if limit and place.content_length > limit:
            full = False
        try:
            if full:
                return self.reader.read(place), True
            start = self.reader.read(place, 0, max(limit, HEADERS_READ))
        except OSError as error:
            self.log.warning(f"{notice.envelope.queue_id}: read original message: {error}")
            return b"", False
        finally:
            self.reader.release(place)
        return dsn_report.header_block(start, limit), False

    async def _enqueue(self, notice: Notice, report: Report, sender: bytes, recipient: bytes) -> str:
        original = notice.envelope
        flags = original.flags & (ContentFlag.SMTPUTF8 | ContentFlag.EIGHT_BIT)
        envelope = Envelope(self.ids.next(), report.now, sender, [Recipient(recipient)], flags=int(flags))
        received = (
            f"Received: by {report.myhostname} ({report.mail_name})\r\n"
            f"\tid {envelope.queue_id}; {rfc5322_date(report.now)}\r\n"
        )
        content = dsn_report.build(report)
        reply = await self.cleanup.enqueue(envelope, content, int(CleanupFlag.INTERNAL), to_bytes(received))
        if reply.status not in (CleanupStatus.OK, CleanupStatus.DISCARDED):
            raise _NotTaken(f"cleanup refused the notice: {reply.reason or CleanupStatus(reply.status).name}")
        return reply.queue_id or envelope.queue_id


class _NotTaken(Exception):
    """cleanup did not take the notice."""


def double_bounce_address(settings: Settings) -> bytes:
    """The sender of what the postmaster gets."""
    name = settings.double_bounce_sender
    return to_bytes(name if "@" in name else f"{name}@{settings.myorigin}")


def is_double_bounce(settings: Settings, sender: bytes) -> bool:
    """Whether a message is itself a notice to the postmaster."""
    return bool(sender) and sender.lower() == double_bounce_address(settings).lower()


def reported(notice: Notice, kind: NoticeKind) -> list[Reported]:
    """The recipients as the report words them."""
    verify = bool(notice.envelope.flags & ContentFlag.TRACE)
    out: list[Reported] = []
    for item in notice.recipients:
        result, recipient = item.result, item.recipient
        if result.outcome == Outcome.SENT:
            action = "deliverable" if verify else result.action or "delivered"
        elif verify:
            action = "undeliverable"
        elif kind == NoticeKind.DELAY or (kind == NoticeKind.SUCCESS and result.outcome == Outcome.DEFERRED):
            action = "delayed"
        else:
            action = "failed"
        out.append(
            Reported(
                recipient.address, action, result.dsn, result.reason, recipient.original, recipient.orcpt, result.mta,
                result.diagnostic,
            )
        )  # fmt: skip
    return out


def thread_headers(content: bytes) -> list[tuple[str, str]]:
    """References and In-Reply-To for enable_threaded_bounces."""
    message_id = references = ""
    for header in split_headers(content)[0]:
        if header.key == b"message-id" and not message_id:
            message_id = to_text(b" ".join(header.value.split()))
        elif header.key == b"references" and not references:
            references = to_text(b" ".join(header.value.split()))
    if not message_id:
        return []
    return [("References", f"{references} {message_id}".strip()), ("In-Reply-To", message_id)]
