"""One SMTP conversation: events from the machine become replies; commands that have to wait keep the input buffered.

Source: smtpd(8), RFC 5321. What has to do with the socket is in wire.py.
Invariants: commands are handled one at a time and in order; nothing outlives ``close``; the transaction is dropped in one place
(``drop_transaction``).
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from estafeta.daemons.smtpd import (
    authentication,
    envelope_commands,
    etrn,
    gate,
    greeting,
    other_client,
    receive,
    session_commands,
    starttls,
)
from estafeta.daemons.smtpd.access import MAPPING, Facts, Verdict
from estafeta.daemons.smtpd.event_line import event_line
from estafeta.daemons.smtpd.events import note_command, note_reply
from estafeta.daemons.smtpd.gate import KNOWN, LAST_OF_GROUP
from estafeta.daemons.smtpd.statistics import statistics
from estafeta.daemons.smtpd.transaction import Transaction
from estafeta.daemons.smtpd.wire import Wire
from estafeta.mail.transcript import Transcript
from estafeta.protocol.smtp_server import ANYWHERE, Command, Event, SmtpServer
from estafeta.service.immediate_task import run_or_task
from estafeta.tls.summary import Summary

if TYPE_CHECKING:
    from estafeta.daemons.smtpd.service import Smtpd

_TURNS = 20  # commands of one client in a row
_HIGH_WATER = 131072  # octets that wait while a command waits; more are not read


class Session(Wire):
    """See the module."""

    __slots__ = (
        "_busy",
        "_junk",
        "_line",
        "_messages",
        "bdat_discarded",
        "bdat_error",
        "counts",
        "deadline",
        "doomed",
        "errors",
        "facts",
        "forwarded",
        "helo",
        "is_counted",
        "is_limited",
        "local_client",
        "machine",
        "may_xclient",
        "may_xforward",
        "must_start_tls",
        "number",
        "port",
        "protocol",
        "refused",
        "reverse_name",
        "service",
        "tls",
        "transaction",
        "transcript",
        "where",
    )  # fmt: skip

    def __init__(self, service: Smtpd, sock: socket.socket, address: str, port: str) -> None:
        super().__init__(service.context.loop, sock)
        self.service = service
        self._busy = False
        self._line: asyncio.Future[None] | None = None  # a command waits for a line that is no command
        self._junk = self._messages = 0
        self.bdat_error = b""  # what the chunks up to the last one are thrown away for
        self.bdat_discarded = 0
        self.machine = SmtpServer(service.settings.line_length_limit)
        self.number = service.context.next_number()
        self.facts = Facts("unknown", address, client_port=port)
        self.port = port
        self.reverse_name = "unknown"
        self.where = f"unknown[{address}]"
        self.helo = ""
        self.protocol = "SMTP"
        self.local_client = False
        self.is_limited = self.is_counted = False  # limits.py: do they hold for this client, does anvil know of it
        self.may_xclient = self.may_xforward = False
        self.forwarded: other_client.Forwarded | None = None  # XFORWARD: whose message comes next
        self.tls: Summary | None = None
        self.must_start_tls = service.settings.tls.enforced
        self.doomed = ""  # what is wrong with the client's certificate: said in answer to the next command
        self.transaction: Transaction | None = None
        self.transcript = Transcript() if service.postmaster.wanted else None
        self.refused: Verdict | None = None  # smtpd_delay_reject = no: what the greeting was refused with
        self.counts: Counter[str] = Counter()
        self.errors = 0
        self.deadline = service.now() + service.settings.timeout_s

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Find out who the client is and greet."""
        self.open()
        self._run(greeting.greet(self))

    def close(self, reason: str = "") -> None:
        """End the conversation now; safe to call twice."""
        if self.closed:
            return
        self.shut()
        self.drop_transaction()
        self._wake()
        if self.is_counted:
            self.service.limits.disconnected(self)
        if reason:
            self.info(f"{reason} from {self.where}")
        self.info(f"disconnect from {self.where}{statistics(self.counts)}")
        if self.transcript is not None and self.transcript.classes:
            self.service.tell_postmaster(self.transcript, self.where, reason)
        self.service.ended(self)

    def reply(self, line: bytes) -> None:
        """Queue one reply (without line end); a refusal gets smtpd_reject_footer."""
        footer = self.service.footer
        if footer is not None and line[:1] in b"45":
            line = footer.added(line, self.facts.client_address, self.port)
        if self.transcript is not None:
            note_reply(self.transcript, line)
        super().reply(line)

    # -- log ----------------------------------------------------------------------------------------------------------

    def info(self, text: str) -> None:
        self.service.log.line(text, self.number)

    def warning(self, text: str) -> None:
        self.service.log.warning(text, self.number)

    def log_reject(self, verdict: Verdict, stage: str, *, warn: bool = False) -> None:
        """The ``reject:`` line that log analysers count."""
        what = "reject_warning" if warn else "reject"
        self.info(event_line(self, stage, what, f"{verdict.code} {verdict.dsn} {verdict.text}"))

    def log_action(self, stage: str, what: str, text: str) -> None:
        """What an access table wants logged: ``warn:``, ``hold:``, ``filter:`` ..."""
        self.info(text if what == MAPPING else event_line(self, stage, what, text))

    # -- bytes --------------------------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        settings = self.service.settings
        if not settings.min_data_rate:
            self.deadline = self.service.now() + settings.timeout_s
        elif self.machine.in_content:  # smtpd_per_request_deadline: content has to come at smtpd_min_data_rate
            latest = self.service.now() + settings.timeout_s
            self.deadline = min(latest, self.deadline + len(data) / settings.min_data_rate)
        self.machine.receive_data(data)
        if not self._busy and not self.blocked:
            self._pump()
        elif self._line is not None:
            self._wake()
        elif self.machine.unread > _HIGH_WATER:
            self.pause_reading()

    def _is_gone(self) -> bool:
        return self.closed

    def _wake(self) -> None:
        if self._line is not None and not self._line.done():
            self._line.set_result(None)

    async def read_line(self, limit: int) -> tuple[bytes, bool]:
        """Send the replies and wait for a line that is no command; (line, was it longer than ``limit``). See ``closed`` then."""
        while not self.closed:
            found = self.machine.next_line(limit)
            if found is not None:
                return found
            self.resume_reading()
            self.flush()
            if self._is_gone():
                break
            self._line = self.service.context.loop.create_future()
            try:
                await self._line
            finally:
                self._line = None
        return b"", False

    def resume(self) -> None:
        """Nothing is in the way any more: go on with the input, and read again if reading was stopped."""
        if self.closed or self._busy or self.blocked:
            return
        self.resume_reading()
        self._pump()

    def lost(self) -> None:
        where = self._where()
        self.close("" if where == "END-OF-MESSAGE" else f"lost connection after {where}")

    def _last_command(self) -> str:
        last = self.service.last_commands.get(self.number)
        return last or "CONNECT"

    def _where(self) -> str:
        """The last command, with what came of a message's content."""
        last = self._last_command()
        if last not in ("DATA", "BDAT"):
            return last
        if self.transaction is None:
            return "END-OF-MESSAGE" if self.counts[last.lower() + "/ok"] else last
        return f"{last} ({self.transaction.size + self.machine.unread} bytes)"

    def time_out(self) -> None:
        """The client has been silent for smtpd_timeout (smtpd_starttls_timeout)."""
        if self.shaking_hands:
            self.give_up_handshake("Connection timed out")
            return
        if self._busy:  # it is we who take so long
            self.deadline = self.service.now() + self.service.settings.timeout_s
            return
        self.reply_now(f"421 4.4.2 {self.service.settings.myhostname} Error: timeout exceeded".encode())
        self.close(f"timeout after {self._where()}")

    # -- events -------------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Handle events until input runs out, a command waits, or the client does not read its replies."""
        machine = self.machine
        turns = _TURNS
        while not self._busy and not self.closed and not self.blocked:
            event = machine.next_event()
            if event is None:
                break
            self._run_event(event)
            turns -= 1
            if not turns:  # others are waiting, too
                self.service.context.loop.call_soon(self.resume)
                break
        self.flush()

    def _run_event(self, event: Event) -> None:
        if type(event) is Command:
            self.deadline = self.service.now() + self.service.settings.timeout_s
            work = self._command(event)
        else:
            assert not isinstance(event, Command)
            work = receive.content(self, event)
        self._busy = True
        if run_or_task(self.service.context.loop, self._guard(work)) is not None:
            self.flush()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._busy = True
        run_or_task(self.service.context.loop, self._resumed(work))

    async def _resumed(self, work: Coroutine[Any, Any, None]) -> None:
        await self._guard(work)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Run one command; an exception that nobody expected is a temporary failure (DESIGN section 9)."""
        try:
            await work
        except Exception as error:  # noqa: BLE001
            self.service.unexpected(error)
            self.drop_transaction()
            self.reply(b"451 4.3.0 Error: internal error")
        self._busy = False
        if self.paused or self.machine.has_input:
            self.service.context.loop.call_soon(self.resume)
        else:
            self.flush()

    # -- commands -----------------------------------------------------------------------------------------------------

    async def _command(self, command: Command) -> None:
        verb = command.verb
        name = verb.decode("latin-1").lower()
        service = self.service
        settings = service.settings
        service.last_commands[self.number] = name.upper() if verb in KNOWN else "UNKNOWN"
        if self.transcript is not None:
            may_be_secret = verb not in KNOWN and "auth" in self.counts
            note_command(self.transcript, command.line, is_auth=verb == b"AUTH", may_be_secret=may_be_secret)
        if (
            verb not in KNOWN
            or verb in settings.forbidden_commands
            or not command.line.isascii()
            or len(command.line) >= settings.line_length_limit
        ) and await gate.turned_away(self, command):
            return
        if self.machine.has_input and (verb in LAST_OF_GROUP or not self.facts.esmtp) and not self.facts.pipelined:
            gate.improper_pipelining(self, verb)
        if verb not in KNOWN:
            if verb in settings.noop_commands:
                self._ok("noop", b"250 2.0.0 Ok")
            else:
                wrong = b"command not recognized" if verb else b"bad syntax"
                self._failed("unknown", b"500 5.5.2 Error: " + wrong)
            return
        if settings.hard_error_limit and self.errors >= settings.hard_error_limit:
            self._too_many_errors()
            return
        if self.refused is not None and verb != b"QUIT":
            self._failed(name, f"503 5.7.0 Error: access denied for {self.where}".encode())
            return
        if self.must_start_tls and self.doomed:
            starttls.end_doomed(self)
            return
        if self.must_start_tls and verb not in _WITHOUT_TLS:
            self._failed(name, b"530 5.7.0 Must issue a STARTTLS command first")
            return
        if verb == b"BDAT":
            await receive.bdat_command(self, command)
            return
        if verb not in ANYWHERE and not self.machine.allows(verb):
            reply = self.machine.order_error(verb)
            if verb == b"RCPT" and self.transaction is None:
                reply = b"503 5.5.1 Error: need MAIL command"
            elif verb == b"MAIL" and self.transaction is not None:
                reply = b"503 5.5.1 Error: nested MAIL command"
            self._failed(name, reply)
            return
        handler = _HANDLERS[verb]
        await handler(self, command)
        if verb in _JUNK:
            self._junk += 1
            if settings.junk_command_limit and self._junk > settings.junk_command_limit + 1:
                self.count_error()

    def _ok(self, name: str, reply: bytes) -> None:
        self.counts[name] += 1
        self.counts[name + "/ok"] += 1
        self.reply(reply)

    def ok(self, verb: bytes, reply: bytes) -> None:
        """The command succeeded: count it, move the machine on, answer."""
        name = _NAMES[verb]
        counts = self.counts
        counts[name] += 1
        counts[name + "/ok"] += 1
        if verb not in ANYWHERE:
            self.machine.advance(verb)
        if self.transcript is not None:
            self.transcript.sent(reply)
        self._out.append(reply + b"\r\n")

    def failed(self, verb: bytes, reply: bytes) -> None:
        """The command failed: count it, answer, slow a bad client down, or end the conversation."""
        self._failed(_NAMES[verb], reply)
        if reply[:4] in (b"421 ", b"521 "):  # access(5): say so and hang up
            self.flush()
            self.close()

    def _failed(self, name: str, reply: bytes) -> None:
        self.counts[name] += 1
        self.reply(reply)
        self.count_error()

    def forgive(self) -> None:
        """A message was taken: errors and junk commands count from zero again."""
        self.errors = self._junk = 0

    def refuse_softly(self, verb: bytes, reply: bytes) -> None:
        """The command failed, but that is no mistake of the client's."""
        self.counts[_NAMES[verb]] += 1
        self.counts[_NAMES[verb] + "/ok"] += 1
        self.reply(reply)

    def refuse_chunk(self, reply: bytes) -> None:
        """The answer to a chunk that was thrown away."""
        self.reply(reply)
        self.count_error()

    def count_error(self) -> None:
        """A mistake of the client's: slow it down after some, end the conversation after many."""
        self.errors += 1
        settings = self.service.settings
        if settings.hard_error_limit and self.errors >= settings.hard_error_limit:
            self._too_many_errors()
        elif self.errors > settings.soft_error_limit and settings.error_sleep_s > 0:
            self.hold_back(settings.error_sleep_s)

    def _too_many_errors(self) -> None:
        self.blocked = False
        last = self._last_command()
        self.reply_now(f"421 4.7.0 {self.service.settings.myhostname} Error: too many errors".encode())
        self.close(f"too many errors after {last}")

    def drop_transaction(self) -> None:
        """The only reset: every trace of MAIL, RCPT, DATA and BDAT goes."""
        transaction, self.transaction = self.transaction, None
        self.bdat_error = b""
        self.forwarded = None
        self.facts.sender = self.facts.recipient = None
        self.facts.sasl_sender = ""
        self.facts.defer_if_permit = self.facts.message_defer = self.facts.session_defer
        self.facts.defer_if_reject = self.facts.actions = None
        self.facts.queue_id = ""
        self.facts.size = self.facts.recipient_count = 0
        if transaction is not None and transaction.stream:
            receive.abort(self, transaction)
        if transaction is not None and transaction.proxy is not None:
            transaction.proxy.close()

    def end_transaction(self) -> None:
        """The transaction is over, whatever became of it."""
        self.drop_transaction()
        self.machine.end_transaction()

    def begin(self, transaction: Transaction) -> None:
        """MAIL was accepted."""
        self.transaction = transaction
        self._messages += 1
        self.facts.message_defer = self.facts.defer_if_permit
        self.facts.instance = f"{self.number:x}.{int(transaction.arrived_at):x}.{self._messages:x}.0"


_WITHOUT_TLS = frozenset((b"HELO", b"EHLO", b"STARTTLS", b"NOOP", b"QUIT", b"XCLIENT", b"XFORWARD"))
_JUNK = frozenset((b"HELO", b"EHLO", b"RSET", b"NOOP", b"VRFY", b"ETRN"))  # commands that get no mail anywhere
_NAMES = {verb: verb.decode().lower() for verb in KNOWN}
_HANDLERS = {
    b"HELO": session_commands.helo_command,
    b"EHLO": session_commands.helo_command,
    b"MAIL": envelope_commands.mail_command,
    b"RCPT": envelope_commands.rcpt_command,
    b"DATA": receive.data_command,
    b"RSET": session_commands.rset_command,
    b"NOOP": session_commands.noop_command,
    b"QUIT": session_commands.quit_command,
    b"VRFY": envelope_commands.vrfy_command,
    b"ETRN": etrn.etrn_command,
    b"AUTH": authentication.auth_command,
    b"STARTTLS": starttls.starttls_command,
    b"XCLIENT": other_client.xclient_command,
    b"XFORWARD": other_client.xforward_command,
}
