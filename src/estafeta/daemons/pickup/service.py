"""From ``maildrop/`` into the queue: read a file, send it to cleanup, remove it when cleanup has it safe.

Source: pickup(8). Invariants: a file is removed only after cleanup's OK, or after the notice about it is safe; a temporary
failure leaves it for the next wake-up; what is no submission goes to ``corrupt/``. Killed at any moment, nothing is lost; the
message under way may come twice.
"""

from __future__ import annotations

import os
import pwd
import socket
import time
from typing import Any

from estafeta.clients.cleanup import CleanupClient
from estafeta.daemons.pickup.submission import SubmissionLink, peer_uid
from estafeta.ipc.channel import ServiceLost
from estafeta.ipc.messages import (
    CleanupFlag,
    CleanupStatus,
    ContentFlag,
    EnqueueReply,
    Envelope,
    Notice,
    NoticeKind,
    NoticeRecipient,
    NoticeReply,
    Outcome,
    Place,
    Recipient,
    RecipientResult,
)
from estafeta.mail import maildrop
from estafeta.mail.date import rfc5322_date
from estafeta.mail.header import split_headers
from estafeta.mail.queue_id import QueueIdMaker
from estafeta.mail.text import to_bytes, to_text
from estafeta.service.daemon import Daemon
from estafeta.spool import maildrop as drop
from estafeta.tables.match_list import StringList
from estafeta.tables.table import LookupFailed

AT_ONCE = 20  # messages on their way to cleanup
ENVELOPE_ROOM = 16 * 1024 * 1024  # octets that the envelope of a submission may take beside its content

_REFUSALS = {
    CleanupStatus.REJECTED: ("5.7.1", "message content rejected"),
    CleanupStatus.TOO_BIG: ("5.3.4", "message file too big"),
    CleanupStatus.HOPS: ("5.4.6", "too many hops"),
    CleanupStatus.NO_RECIPIENTS: ("5.1.0", "no recipients specified"),
}


class Pickup(Daemon):
    """pickup(8)."""

    max_workers = 1

    cleanup: CleanupClient

    def prepare(self) -> None:
        config = self.config
        self.content_filter = config.get("content_filter")
        overrides = {word.lower() for word in config.words("receive_override_options")}
        flags = CleanupFlag.EXTERNAL
        if "no_header_body_checks" in overrides:
            flags &= ~CleanupFlag.FILTER
        if "no_address_mappings" in overrides:
            flags &= ~(CleanupFlag.MAP | CleanupFlag.BCC)
        self.flags = flags
        self.myhostname = config.get("myhostname")
        self.mail_name = config.get("mail_name")
        limit = config.size("message_size_limit")
        self.size_limit = limit
        self.largest_submission = limit * 2 + ENVELOPE_ROOM if limit else 0
        self.detect_utf8 = config.bool("smtputf8_enable") and bool(
            {"all", "sendmail"} & {word.lower() for word in config.words("smtputf8_autodetect_classes")}
        )
        options = self.table_options()
        self.authorized = StringList(config.get("authorized_submit_users"), options, "authorized_submit_users")
        self.ids = QueueIdMaker(os.getpid(), time.time_ns, long=config.bool("enable_long_queue_ids"))
        self._under_way: set[str] = set()
        self._waiting: list[str] = []

    async def start(self) -> None:
        self.cleanup = CleanupClient(self.context.channel("cleanup"))

    def is_busy(self) -> bool:
        return self.context.clients > 0 or bool(self._under_way)

    def in_hand(self) -> bool:
        self._waiting.clear()  # they stay where they are; what cleanup has already must not be sent twice
        return bool(self._under_way)

    # -- the socket ---------------------------------------------------------------------------------------------------

    def on_socket(self, link: socket.socket, peer: Any) -> None:
        uid = peer_uid(link)
        self.context.client_opened()
        self.context.loop.create_task(self._adopt_submission(link, uid))

    async def _adopt_submission(self, link: socket.socket, uid: int) -> None:
        await self.context.loop.connect_accepted_socket(lambda: SubmissionLink(self, uid), link)

    async def accept(self, link: SubmissionLink, uid: int, data: bytes) -> None:
        """A user without rights on maildrop hands in a message."""
        try:
            login = pwd.getpwuid(uid).pw_name
        except KeyError:
            login = "unknown"
        try:
            if not await self.authorized.match(login):
                self.log.warning(f"submission from {login}(uid={uid}) refused: not in authorized_submit_users")
                link.answer("NO", f"User {login}({uid}) is not allowed to submit mail")
                return
            submission = maildrop.decode(data)
        except LookupFailed as error:
            self.log.warning(str(error))
            link.answer("TRY", "table look-up failed")
            return
        except maildrop.MaildropError as error:
            link.answer("NO", f"malformed submission: {error}")
            return
        submission.uid = uid
        submission.arrived_at = time.time()
        encoded = maildrop.encode(submission)
        try:
            name = await self.context.loop.run_in_executor(None, drop.write, self.context.queue_directory, encoded)
        except OSError as error:
            self.log.warning(f"create maildrop file: {error}")
            link.answer("TRY", f"create maildrop file: {error.strerror or error}")
            return
        link.answer("OK", name)
        self.scan()

    # -- the directory ------------------------------------------------------------------------------------------------

    def on_trigger(self, letters: bytes) -> None:
        self.scan()

    def scan(self) -> None:
        """Start on what is in maildrop and not under way."""
        known = set(self._waiting) | self._under_way
        self._waiting.extend(name for name in drop.names(self.context.queue_directory) if name not in known)
        self._more()

    def _more(self) -> None:
        while self._waiting and len(self._under_way) < AT_ONCE:
            name = self._waiting.pop(0)
            self._under_way.add(name)
            self.run_soon(self._one(name))

    async def _one(self, name: str) -> None:
        try:
            await self._take(name)
        finally:
            self._under_way.discard(name)
            if self._waiting:
                self.context.loop.call_soon(self._more)

    async def _take(self, name: str) -> None:
        try:
            submission = drop.read(self.context.queue_directory, name)
        except FileNotFoundError:
            return
        except maildrop.MaildropError as error:
            self._set_aside(name, str(error))
            return
        except OSError as error:
            self.log.warning(f"maildrop/{name}: {error.strerror or error}")
            return
        envelope = self._envelope(submission)
        self.log.info(f"{envelope.queue_id}: uid={submission.uid} from=<{to_text(submission.sender)}>")
        try:
            if self.size_limit and len(submission.content) > self.size_limit:
                self.log.warning(f"{envelope.queue_id}: queue file size limit exceeded")
                reply = EnqueueReply(CleanupStatus.TOO_BIG, envelope.queue_id)
            else:
                reply = await self._enqueue(submission, envelope)
        except ServiceLost as error:
            self.log.warning(f"{envelope.queue_id}: cleanup service: {error}; maildrop/{name} stays for another try")
            return
        await self._finish(name, submission, envelope, reply)

    def _set_aside(self, name: str, reason: str) -> None:
        try:
            os.rename(f"maildrop/{name}", f"corrupt/{name}")
        except OSError as error:
            self.log.error(f"maildrop/{name}: {reason}; move to corrupt: {error.strerror}")
        else:
            self.log.warning(f"maildrop/{name}: {reason}; saved as corrupt/{name}")

    def _envelope(self, submission: maildrop.Submission) -> Envelope:
        flags = ContentFlag(0)
        if submission.body == "8BITMIME":
            flags |= ContentFlag.EIGHT_BIT
        if self.detect_utf8 and wants_smtputf8(submission):
            flags |= ContentFlag.SMTPUTF8
        if submission.trace:
            flags |= ContentFlag.TRACE if submission.trace == "verify" else ContentFlag.VERBOSE_TRACE
        return Envelope(
            self.ids.next(),
            submission.arrived_at or time.time(),
            submission.sender,
            [Recipient(address, b"", submission.notify) for address in submission.recipients],
            flags=int(flags),
            envid=submission.envid,
            ret=submission.ret,
            content_filter="" if submission.trace == "verify" else self.content_filter,
            rewrite_context=submission.context,
            sender_original=submission.full_name,
        )

    async def _enqueue(self, submission: maildrop.Submission, envelope: Envelope) -> EnqueueReply:
        received = to_bytes(
            f"Received: by {self.myhostname} ({self.mail_name}, from userid {submission.uid})\r\n"
            f"\tid {envelope.queue_id}; {rfc5322_date(envelope.arrived_at)}\r\n"
        )
        return await self.cleanup.enqueue(
            envelope, submission.content, int(self.flags), received, header_from_local=submission.context == "local"
        )

    async def _finish(self, name: str, submission: maildrop.Submission, envelope: Envelope, reply: EnqueueReply) -> None:
        if reply.status in (CleanupStatus.OK, CleanupStatus.DISCARDED):
            self._remove(name)
            return
        dsn, reason = _REFUSALS.get(CleanupStatus(reply.status), ("", ""))
        dsn, reason = reply.dsn or dsn, reply.reason or reason
        if not dsn.startswith("5"):
            self.log.warning(f"{envelope.queue_id}: message not queued; maildrop/{name} stays for another try")
            return
        if await self._bounce(name, submission, envelope, dsn, reason):
            self._remove(name)

    async def _bounce(
        self, name: str, submission: maildrop.Submission, envelope: Envelope, dsn: str, reason: str
    ) -> bool:
        """The message can never be queued: tell its sender. True once that is safe."""
        recipients = [
            Recipient(address, b"", submission.notify) for address in submission.recipients or [b"unknown"]
        ]
        for recipient in recipients:
            self.log.info(
                f"{envelope.queue_id}: to=<{to_text(recipient.address)}>, relay=none, delay=0, delays=0/0/0/0, "
                f"dsn={dsn}, status=bounced ({reason})"
            )
        size = len(submission.content)
        length = os.stat(f"maildrop/{name}").st_size
        place = Place(f"maildrop/{name}", 0, length, length - size, size)
        results = [
            NoticeRecipient(recipient, RecipientResult(index, Outcome.BOUNCED, dsn, reason))
            for index, recipient in enumerate(recipients)
        ]
        try:
            reply = await self.context.channel("bounce").call(Notice(NoticeKind.FAILURE, place, envelope, results))
        except ServiceLost as error:
            self.log.warning(f"{envelope.queue_id}: bounce service: {error}")
            return False
        return isinstance(reply, NoticeReply) and reply.ok

    def _remove(self, name: str) -> None:
        try:
            os.unlink(f"maildrop/{name}")
        except OSError as error:
            self.log.warning(f"remove maildrop/{name}: {error.strerror}")


def wants_smtputf8(submission: maildrop.Submission) -> bool:
    """Whether the message needs SMTPUTF8: UTF-8 in an address or a header (postconf(5) smtputf8_autodetect_classes)."""
    pieces = [submission.sender, *submission.recipients]
    if not submission.content.isascii():
        pieces.append(submission.content[: split_headers(submission.content)[1]])
    found = False
    for piece in pieces:
        if not piece.isascii():
            try:
                piece.decode("utf-8")
            except UnicodeDecodeError:
                return False
            found = True
    return found
