"""Notices about SMTP sessions to the postmaster: who gets them, what they look like, how they get into the queue.

Source: postconf(5) notify_classes, error_notice_recipient, bounce_notice_recipient. They come from double_bounce_sender, which
nobody answers, and go through cleanup as internal mail. Invariant: a notice that cannot be sent is a line in the log, no more.
"""

from __future__ import annotations

import time

from estafeta.clients.cleanup import CleanupClient
from estafeta.config.config import Config
from estafeta.ipc.channel import Channel, ServiceLost
from estafeta.ipc.messages import CleanupFlag, CleanupStatus, Envelope, Recipient
from estafeta.mail.date import rfc5322_date
from estafeta.mail.dsn_report import standard_from
from estafeta.mail.queue_id import QueueIdMaker
from estafeta.mail.text import to_bytes
from estafeta.mail.transcript import Transcript
from estafeta.system.log import Log


class Postmaster:
    """One program's notices. ``kinds`` are the classes that its sessions can tell of."""

    def __init__(self, config: Config, program: str, kinds: frozenset[str], ids: QueueIdMaker, log: Log) -> None:
        self.wanted = kinds & {word.lower() for word in config.words("notify_classes")}
        self.pending = 0  # notices on their way to cleanup
        self._program = program
        self._ids = ids
        self._log = log
        self._errors_to = config.get("error_notice_recipient")
        self._bounces_to = config.get("bounce_notice_recipient")
        self._myhostname = config.get("myhostname")
        self._myorigin = config.get("myorigin")
        self._mail_name = config.get("mail_name")
        name = config.get("double_bounce_sender")
        self.sender = to_bytes(name if "@" in name else f"{name}@{self._myorigin}")
        origin = f"MAILER-DAEMON@{self._myorigin}" if self._myorigin else "MAILER-DAEMON"
        is_standard = config.get("header_from_format").lower() == "standard"
        value = "MAILER-DAEMON (Mail Delivery System)"
        self._from = standard_from(value, self._myorigin) if is_standard else f"{origin} (Mail Delivery System)"

    def concerns(self, transcript: Transcript | None) -> bool:
        """Whether the postmaster wants to hear of this session."""
        return transcript is not None and not self.wanted.isdisjoint(transcript.classes)

    async def tell(self, cleanup: Channel, transcript: Transcript, peer: str, *, first: str = "", reason: str = "") -> None:
        """Send the transcript of the session with ``peer``. ``reason``: why it ended before its time."""
        happened = self.wanted & transcript.classes
        recipient = self._bounces_to if happened == {"bounce"} else self._errors_to
        now = time.time()
        envelope = Envelope(self._ids.next(), now, self.sender, [Recipient(to_bytes(recipient))])
        date = rfc5322_date(now)
        received = f"Received: by {self._myhostname} ({self._mail_name})\r\n\tid {envelope.queue_id}; {date}\r\n"
        content = self._content(transcript, peer, recipient, date, first, reason)
        self.pending += 1
        try:
            reply = await CleanupClient(cleanup).enqueue(envelope, content, int(CleanupFlag.INTERNAL), to_bytes(received))
        except ServiceLost as error:
            self._log.warning(f"postmaster notice about the session with {peer} is lost: {error}")
            return
        finally:
            self.pending -= 1
        if reply.status not in (CleanupStatus.OK, CleanupStatus.DISCARDED):
            why = reply.reason or CleanupStatus(reply.status).name
            self._log.warning(f"postmaster notice about the session with {peer} was not taken: {why}")

    def _content(self, transcript: Transcript, peer: str, to: str, date: str, first: str, reason: str) -> bytes:
        shown = to if "@" in to else f"{to}@{self._myorigin}"
        lines = [
            f"Date: {date}",
            f"From: {self._from}",
            f"To: Postmaster <{shown}>",
            f"Subject: {self._mail_name} {self._program}: errors from {peer}",
            "",
            *([first, ""] if first else []),
            "This is what was said in the session.",
            "",
            *transcript.lines(),
            "",
            *([f"Session aborted, reason: {reason}"] if reason else []),
            "",
            "The mail log of this host may tell more.",
        ]
        return to_bytes("\r\n".join(lines) + "\r\n")
