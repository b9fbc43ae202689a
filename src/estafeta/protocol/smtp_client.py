"""The SMTP and LMTP client as a machine without I/O: server bytes in, events out, bytes to send on the side.

Source: RFC 5321, RFC 2920 (PIPELINING), RFC 2033 (LMTP), RFC 3207 (STARTTLS); man 8 smtp. Use: call a command method,
write ``bytes_to_send()`` to the server, feed what it says to ``receive_data``, take ``next_event()`` until it is
None, write ``bytes_to_send()`` again. Invariants:
- Replies belong to commands in the order of sending; ``_waiting`` holds the commands whose replies are not here yet.
- Everything of one transaction lives in one ``_Transaction`` that is dropped in one place, ``_over``.
- Content is sent only after 354 and an accepted recipient; a 354 without one is answered with a lone dot, and a
  reply that comes before the end of the content waits until the final dot went out.
- After STARTTLS was accepted the machine takes no more input until ``tls_started``; what was buffered is thrown away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from estafeta.mail.transcript import SECRET, Transcript, without_secrets
from estafeta.protocol.smtp_client_commands import (
    ClientOptions,
    Envelope,
    EnvelopeRecipient,
    Features,
    dot_stuff,
    mail_command,
    parse_features,
    rcpt_command,
)
from estafeta.protocol.smtp_client_events import (
    TRANSITIONS,
    Closed,
    CommandReply,
    ConnectionLost,
    DataReady,
    DataRefused,
    Event,
    Greeting,
    HelloDone,
    HelloRefused,
    MessageDone,
    Move,
    ProtocolError,
    QuitDone,
    RecipientResult,
    ResetDone,
    SenderResult,
    State,
    TransactionOver,
    Unsolicited,
)
from estafeta.protocol.smtp_client_phase import Phase
from estafeta.protocol.smtp_reply import ReplyError, ReplyReader, SmtpReply

__all__ = [
    "ClientOptions",
    "Closed",
    "CommandReply",
    "ConnectionLost",
    "DataReady",
    "DataRefused",
    "Envelope",
    "EnvelopeRecipient",
    "Event",
    "Features",
    "Greeting",
    "HelloDone",
    "HelloRefused",
    "LocalError",
    "MessageDone",
    "Phase",
    "ProtocolError",
    "QuitDone",
    "RecipientResult",
    "ResetDone",
    "SenderResult",
    "SmtpClient",
    "SmtpReply",
    "State",
    "TransactionOver",
    "Unsolicited",
]


class LocalError(RuntimeError):
    """A method was called where the conversation does not allow it: a bug of the caller."""


@dataclass(slots=True)
class _Transaction:
    """Everything that one MAIL started."""

    unsent: deque[tuple[Phase, int, bytes]]
    sender_ok: bool | None = None
    accepted: list[int] = field(default_factory=list)
    delivered: bool = False
    void: bool = False


class SmtpClient:
    """One session with one server."""

    def __init__(self, options: ClientOptions, line_filter: Callable[[bytes], bytes] | None = None) -> None:
        """``line_filter`` is smtp_reply_filter, applied to each line of a reply."""
        self.options = options
        self.features = Features({})
        self.state = State.GREETING
        self.must_close = False
        """No further transaction may use this session."""
        self.transcript: Transcript | None = None
        """Where what is said is noted, if anybody wants to know; contents are not, nor what AUTH says."""
        self._reader = ReplyReader(line_filter)
        self._waiting: deque[tuple[Phase, int]] = deque([(Phase.GREETING, 0)])
        self._events: deque[Event] = deque()
        self._output: list[bytes] = []
        self._transaction: _Transaction | None = None
        self._needs_reset = False
        self._at_end = False

    # -- what the caller asks --------------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """What is waited for now; it decides the time limit and the words of the log."""
        if self.state is State.CONTENT:
            return Phase.CONTENT
        return self._waiting[0][0] if self._waiting else Phase.CONTENT

    @property
    def reusable(self) -> bool:
        """Whether another transaction can begin right now."""
        return self.state is State.READY and not self.must_close and not self._waiting and not self._at_end

    @property
    def pipelining(self) -> bool:
        """Whether commands are sent without waiting for replies."""
        return self.options.pipelining and "pipelining" in self.features

    def bytes_to_send(self) -> bytes:
        """Return what has to be written to the server, once."""
        if not self._output:
            return b""
        data = b"".join(self._output)
        self._output.clear()
        return data

    # -- commands --------------------------------------------------------------------------------------------------

    def hello(self, *, extended: bool = True) -> None:
        """Say EHLO (LHLO), or HELO when not ``extended``; again after STARTTLS. A refused EHLO falls back to HELO."""
        self._go(Move.SAY_HELLO)
        self.features = Features({})
        if self.options.lmtp:
            self._send(Phase.LHLO, b"LHLO " + self.options.helo_name + b"\r\n")
        elif extended and not self.options.never_send_ehlo:
            self._send(Phase.EHLO, b"EHLO " + self.options.helo_name + b"\r\n")
        else:
            self._send(Phase.HELO, b"HELO " + self.options.helo_name + b"\r\n")

    def ask(self, phase: Phase, line: bytes) -> None:
        """Send a line (without CRLF) whose reply comes back as a CommandReply: AUTH, its answers, XFORWARD."""
        if b"\r" in line or b"\n" in line:
            raise LocalError("line break in a command")
        self._go(Move.ASK)
        self._send(phase, line + b"\r\n")

    def start_tls(self) -> None:
        """Send STARTTLS; if the CommandReply is positive the machine is stopped until ``tls_started``."""
        self.ask(Phase.STARTTLS, b"STARTTLS")

    def tls_started(self) -> None:
        """Go on after the handshake; nothing learned in clear is kept, and ``hello`` has to be said again."""
        self._go(Move.RESTART)
        self._reader.clear()
        self.features = Features({})

    def begin(self, envelope: Envelope, *, probe: bool = False) -> None:
        """Start a transaction: all of its commands at once when pipelining, else one after the other.

        A ``probe`` ends behind the recipients: no DATA, and RSET before the next transaction.
        """
        if not envelope.recipients:
            raise LocalError("no recipients")
        self._go(Move.BEGIN)
        quote = self.options.quote_addresses
        features = self.features
        commands: deque[tuple[Phase, int, bytes]] = deque()
        if self._needs_reset:
            commands.append((Phase.RSET, 0, b"RSET\r\n"))
            self._needs_reset = False
        commands.append((Phase.MAIL, 0, mail_command(envelope, features, quote=quote)))
        for index, recipient in enumerate(envelope.recipients):
            commands.append((Phase.RCPT, index, rcpt_command(recipient, features, quote=quote)))
        if not probe:
            commands.append((Phase.DATA, 0, b"DATA\r\n"))
        self._transaction = _Transaction(commands)
        self._advance(self._transaction)

    def send_content(self, content: bytes, *, dot_free: bool = False, quit_after: bool = False) -> None:
        """Send the whole content (wire form, dots not doubled) and its end."""
        self._require(State.CONTENT)
        self._output.append(dot_stuff(content, dot_free=dot_free))
        self.end_content(quit_after=quit_after)

    def end_content(self, *, quit_after: bool = False) -> None:
        """Send the final dot after the caller wrote the content itself (ending in CRLF, dots doubled).

        ``quit_after`` sends QUIT in the same write: for the last transaction of a session.
        """
        transaction = self._current()
        self._go(Move.END_CONTENT)
        self._output.append(b".\r\n")
        if self.transcript is not None:
            self.transcript.sent(b".")
        for index in transaction.accepted if self.options.lmtp else (-1,):
            self._waiting.append((Phase.DOT, index))
        if quit_after:
            self.must_close = True
            self._send(Phase.QUIT, b"QUIT\r\n")

    def reset(self) -> None:
        """Send RSET: to see whether a kept session is still alive, or to end a probe."""
        self._go(Move.RESET)
        self._needs_reset = False
        self._send(Phase.RSET, b"RSET\r\n")

    def quit(self) -> None:
        """Send QUIT; nothing happens when the session is closed already."""
        if self.state is State.CLOSED:
            return
        self._go(Move.QUIT)
        self.must_close = True
        self._send(Phase.QUIT, b"QUIT\r\n")

    def close(self) -> None:
        """Give up: no more input is taken and nothing is sent."""
        self._go(Move.CLOSE)
        self.must_close = True
        self._output.clear()
        self._waiting.clear()
        self._transaction = None

    # -- input -----------------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Take bytes from the server; b"" is the end of the stream."""
        if self.state is State.CLOSED:
            return
        if not data:
            self._at_end = True
        elif self.state is not State.STOPPED:
            self._reader.feed(data)

    def next_event(self) -> Event | None:
        """Return the next event, None when more bytes are needed."""
        while not self._events:
            if self.state in (State.CLOSED, State.STOPPED):
                return None
            if self.state is State.CONTENT and not self._at_end:
                # An early reply is that to the final dot.
                return None
            try:
                reply = self._reader.next_reply()
            except ReplyError as error:
                phase = self.phase
                self.close()
                return ProtocolError(str(error), phase)
            if reply is None:
                return self._end() if self._at_end else None
            self._dispatch(reply)
        return self._events.popleft()

    def _end(self) -> Event:
        due = bool(self._waiting) or self._transaction is not None
        phase = self.phase
        self.close()
        return ConnectionLost(phase) if due else Closed()

    def _dispatch(self, reply: SmtpReply) -> None:
        if self.transcript is not None:
            self._note(self.transcript, reply)
        if reply.code == 421:
            self.must_close = True
        if not self._waiting:
            self.must_close = True
            self._events.append(Unsolicited(reply))
            return
        phase, index = self._waiting.popleft()
        _HANDLERS[phase](self, phase, index, reply)

    def _on_greeting(self, phase: Phase, index: int, reply: SmtpReply) -> None:
        self._go(Move.GREETED)
        extended = b"ESMTP" in b" ".join(reply.lines)
        self._events.append(Greeting(reply, extended))

    def _on_hello(self, phase: Phase, index: int, reply: SmtpReply) -> None:
        if reply.positive:
            lines = reply.lines if phase is not Phase.HELO else reply.lines[:1]
            self.features = parse_features(lines, self.options.discard_keywords)
            self._go(Move.ACCEPTED)
            self._events.append(HelloDone(reply, self.features, phase is not Phase.HELO))
        elif phase is Phase.EHLO and reply.code != 421:
            self._send(Phase.HELO, b"HELO " + self.options.helo_name + b"\r\n")
        else:
            self.must_close = True
            self._events.append(HelloRefused(reply, phase))

    def _on_command(self, phase: Phase, index: int, reply: SmtpReply) -> None:
        if phase is Phase.STARTTLS and reply.positive:
            self._reader.clear()
            self._go(Move.STOP)
        elif reply.code // 100 != 3:
            self._go(Move.ACCEPTED)
        self._events.append(CommandReply(phase, reply))

    def _on_mail(self, phase: Phase, index: int, reply: SmtpReply) -> None:
        transaction = self._current()
        transaction.sender_ok = reply.positive
        self._events.append(SenderResult(reply))
        if not reply.positive:
            transaction.unsent.clear()
        self._advance(transaction)

    def _on_rcpt(self, phase: Phase, index: int, reply: SmtpReply) -> None:
        transaction = self._current()
        if transaction.sender_ok:
            self._events.append(RecipientResult(index, reply))
            if reply.positive:
                transaction.accepted.append(index)
        elif reply.positive:
            # The sender was refused and yet this recipient is taken.
            transaction.void = True
        self._advance(transaction)

    def _on_data(self, phase: Phase, index: int, reply: SmtpReply) -> None:
        transaction = self._current()
        accepted = tuple(transaction.accepted)
        go_ahead = reply.code // 100 == 3
        if accepted and go_ahead:
            self._go(Move.GO_AHEAD)
            self._events.append(DataReady(accepted))
        elif go_ahead:
            self._go(Move.END_CONTENT)
            if transaction.void or self.options.lmtp:
                # A server that takes recipients without a sender would take an empty message too, and LMTP has no
                # reply for nobody: nothing more can be said here.
                self._over(transaction)
                self.close()
                return
            # RFC 2920 section 3.1: the server waits for content although nobody is to get it.
            transaction.void = True
            self._output.append(b".\r\n")
            if self.transcript is not None:
                self.transcript.sent(b".")
            self._waiting.append((Phase.DOT, -1))
        else:
            if accepted:
                self._events.append(DataRefused(reply, accepted))
            self._needs_reset = True
            self._over(transaction)

    def _on_dot(self, phase: Phase, index: int, reply: SmtpReply) -> None:
        transaction = self._current()
        if not transaction.void:
            transaction.delivered = True
            indexes = tuple(transaction.accepted) if index < 0 else (index,)
            self._events.append(MessageDone(reply, indexes))
        if not self._waiting or self._waiting[0][0] is not Phase.DOT:
            self._over(transaction)

    def _on_rset(self, phase: Phase, index: int, reply: SmtpReply) -> None:
        if self._transaction is not None:
            # It only cleared the way for this transaction; a server that refuses it will refuse MAIL.
            self._advance(self._transaction)
            return
        self._go(Move.ACCEPTED)
        self._events.append(ResetDone(reply))

    def _on_quit(self, phase: Phase, index: int, reply: SmtpReply) -> None:
        self._events.append(QuitDone(reply))

    # -- inside ----------------------------------------------------------------------------------------------------

    def _advance(self, transaction: _Transaction) -> None:
        """Send what may be sent now; find the end of a transaction that has nothing left to send or to wait for."""
        unsent = transaction.unsent
        if unsent and self.pipelining:
            for phase, index, _ in unsent:
                self._waiting.append((phase, index))
            self._output.extend([command for _, _, command in unsent])
            if self.transcript is not None:
                for _, _, command in unsent:
                    self.transcript.sent(command[:-2])
            unsent.clear()
            return
        if self._waiting:
            return
        if unsent:
            phase, index, command = unsent[0]
            if phase is not Phase.DATA or transaction.accepted:
                unsent.popleft()
                self._send(phase, command, index)
                return
        self._needs_reset = True
        self._over(transaction)

    def _over(self, transaction: _Transaction) -> None:
        self._transaction = None
        self._go(Move.OVER)
        self._events.append(TransactionOver(transaction.delivered))
        if self._waiting:
            # QUIT went out behind the final dot.
            self._go(Move.QUIT)

    def _current(self) -> _Transaction:
        if self._transaction is None:
            raise LocalError("no transaction")
        return self._transaction

    def _note(self, transcript: Transcript, reply: SmtpReply) -> None:
        """Syntax errors, and success where there can be none, are the server's mistakes in the protocol, or ours."""
        expected = self._waiting[0][0] if self._waiting else None
        current = self._transaction
        # What was pipelined behind a refusal is out of order for the server, and nobody's mistake.
        moot = current is not None and (current.sender_ok is False or (expected is Phase.DATA and not current.accepted))
        if not moot and (500 <= reply.code <= 504 or (expected is Phase.DATA and reply.positive)):
            transcript.classes.add("protocol")
        if expected is Phase.AUTH and reply.code == 334:
            transcript.got(b"334 " + SECRET)
        else:
            transcript.got(*reply.lines)

    def _send(self, phase: Phase, line: bytes, index: int = 0) -> None:
        if self.transcript is not None:
            self.transcript.sent(without_secrets(line) if phase is Phase.AUTH else line[:-2])
        self._waiting.append((phase, index))
        self._output.append(line)

    def _require(self, state: State) -> None:
        if self.state is not state:
            raise LocalError(f"not allowed in state {self.state.name}")

    def _go(self, move: Move) -> None:
        try:
            self.state = TRANSITIONS[self.state, move]
        except KeyError:
            raise LocalError(f"{move.name} is not allowed in state {self.state.name}") from None


_HANDLERS: dict[Phase, Callable[[SmtpClient, Phase, int, SmtpReply], None]] = {
    Phase.GREETING: SmtpClient._on_greeting,
    Phase.EHLO: SmtpClient._on_hello,
    Phase.HELO: SmtpClient._on_hello,
    Phase.LHLO: SmtpClient._on_hello,
    Phase.STARTTLS: SmtpClient._on_command,
    Phase.AUTH: SmtpClient._on_command,
    Phase.XFORWARD: SmtpClient._on_command,
    Phase.MAIL: SmtpClient._on_mail,
    Phase.RCPT: SmtpClient._on_rcpt,
    Phase.DATA: SmtpClient._on_data,
    Phase.DOT: SmtpClient._on_dot,
    Phase.RSET: SmtpClient._on_rset,
    Phase.QUIT: SmtpClient._on_quit,
}
