"""The server side of SMTP as a machine: bytes in, events out; no socket, no clock.

Source: RFC 5321 sections 4.1 and 4.5, RFC 3030 (BDAT), RFC 2920 (PIPELINING). postconf(5) line_length_limit,
smtpd_forbid_bare_newline.
Owns: cutting the stream into commands and message content, dot-unstuffing, which command may follow which.
Invariants: only <CR><LF>.<CR><LF> ends a message; over-long lines and refused contents are still consumed to their end;
after STOP nothing more is read (QUIT, STARTTLS: what was pipelined behind STARTTLS is thrown away by ``take_leftover``).

The caller says which answer a command got (``advance``): the transition table below decides what may come next. A pair that
is not in the table is a command out of order, for which ``order_error`` has Postfix's reply.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

CHUNK = 65536  # content beyond this is handed out in pieces
_END = b"\r\n.\r\n"


class State(Enum):
    """Where the conversation is."""

    START = auto()  # no HELO yet
    READY = auto()  # greeted, no transaction
    MAIL = auto()  # MAIL accepted
    RCPT = auto()  # at least one RCPT accepted
    DATA = auto()  # content follows, dot-stuffed
    BDAT = auto()  # between BDAT chunks
    CHUNK = auto()  # octets of a BDAT chunk follow
    STOP = auto()


# State -> command that was accepted -> next state. The greeting is optional (smtpd_helo_required is policy, not protocol).
TRANSITIONS: dict[State, dict[bytes, State]] = {
    State.START: {b"HELO": State.READY, b"EHLO": State.READY, b"MAIL": State.MAIL, b"RSET": State.START},
    State.READY: {b"HELO": State.READY, b"EHLO": State.READY, b"MAIL": State.MAIL, b"RSET": State.READY},
    State.MAIL: {
        b"HELO": State.READY, b"EHLO": State.READY, b"RCPT": State.RCPT, b"RSET": State.READY,
    },
    State.RCPT: {
        b"HELO": State.READY, b"EHLO": State.READY, b"RCPT": State.RCPT, b"DATA": State.DATA, b"BDAT": State.CHUNK,
        b"RSET": State.READY,
    },
    State.BDAT: {b"HELO": State.READY, b"EHLO": State.READY, b"BDAT": State.CHUNK, b"RSET": State.READY},
}  # fmt: skip

_ORDER_ERRORS = {
    b"MAIL": b"503 5.5.1 Error: nested MAIL command",
    b"RCPT": b"503 5.5.1 Error: need MAIL command",
    b"DATA": b"503 5.5.1 Error: need RCPT command",
    b"BDAT": b"503 5.5.1 Error: need RCPT command",
}
ANYWHERE = frozenset((b"NOOP", b"QUIT", b"VRFY", b"ETRN", b"AUTH", b"STARTTLS", b"XCLIENT", b"XFORWARD", b"HELP"))


class Command(NamedTuple):
    """One command line: the verb in upper case, the rest without outer white space, the line as it came."""

    verb: bytes
    argument: bytes
    line: bytes


class LineTooLong(NamedTuple):
    """A command line over the limit has been skipped."""


class Content(NamedTuple):
    """Message content, unstuffed, CRLF line ends. ``last``: the message is complete."""

    data: bytes
    last: bool
    bare_newline: bool = False


class ChunkContent(NamedTuple):
    """Octets of a BDAT chunk; ``end`` closes the chunk, ``last`` (with ``end``) the message."""

    data: bytes
    end: bool
    last: bool


Event = Command | LineTooLong | Content | ChunkContent


class SmtpServer:
    """One conversation. Feed with ``receive_data``, ask with ``next_event`` until it gives None."""

    __slots__ = ("_buffer", "_chunk_last", "_chunk_left", "_limit", "_scan", "_skipping", "_start_of_line", "state")

    def __init__(self, line_length_limit: int = 2048) -> None:
        self.state = State.START
        self._buffer = bytearray()
        self._limit = line_length_limit
        self._scan = 0  # everything before this has been searched for the end
        self._start_of_line = True  # DATA: the buffer starts at the start of a line
        self._skipping = False
        self._chunk_left = 0
        self._chunk_last = False

    def receive_data(self, data: bytes) -> None:
        """Take what came from the client."""
        self._buffer += data

    @property
    def has_input(self) -> bool:
        """True if bytes wait that have not been read as a command: the client pipelines."""
        return bool(self._buffer)

    def take_leftover(self) -> bytes:
        """Give up the unread input (after STARTTLS or QUIT)."""
        leftover = bytes(self._buffer)
        self._buffer.clear()
        return leftover

    def allows(self, verb: bytes) -> bool:
        """True if ``verb`` may come now."""
        return verb in TRANSITIONS.get(self.state, {}) or verb in ANYWHERE

    def order_error(self, verb: bytes) -> bytes:
        """The reply for a command out of order."""
        if self.state is State.BDAT and verb in (b"MAIL", b"RCPT", b"DATA"):
            if verb == b"MAIL":
                return b"503 5.5.1 Error: nested MAIL command"
            return b"503 5.5.1 Error: " + verb + b" after BDAT"
        if verb == b"RCPT" and self.state is State.BDAT:
            return b"503 5.5.1 Error: RCPT after BDAT"
        return _ORDER_ERRORS[verb]

    def advance(self, verb: bytes) -> None:
        """The command was accepted: move on. For DATA call it after 354, for BDAT use ``expect_chunk``."""
        before = self.state
        self.state = TRANSITIONS[before][verb]
        if self.state is State.DATA:
            self._start_of_line = True
            self._scan = 0

    def expect_chunk(self, size: int, last: bool) -> None:
        """The next ``size`` octets belong to a BDAT chunk, whether or not they are wanted."""
        self.state = State.CHUNK
        self._chunk_left = size
        self._chunk_last = last

    def end_transaction(self) -> None:
        """The transaction is over (delivered, refused, RSET): back to where MAIL may come."""
        if self.state is not State.STOP:
            self.state = State.READY

    def stop(self) -> None:
        """Read nothing more."""
        self.state = State.STOP

    def next_event(self) -> Event | None:
        """The next event, or None if more bytes are needed."""
        state = self.state
        if not self._buffer and not (state is State.CHUNK and self._chunk_left == 0):
            return None
        if state is State.DATA:
            return self._next_content()
        if state is State.CHUNK:
            return self._next_chunk()
        if state is State.STOP:
            return None
        return self._next_command()

    def _next_command(self) -> Event | None:
        buffer = self._buffer
        end = buffer.find(b"\n", self._scan)
        if end < 0:
            if self._skipping:
                buffer.clear()
                self._scan = 0
            elif len(buffer) > self._limit:
                self._skipping = True
                buffer.clear()
                self._scan = 0
            else:
                self._scan = len(buffer)
            return None
        self._scan = 0
        line = bytes(buffer[:end])
        del buffer[: end + 1]
        if self._skipping or len(line) > self._limit:
            self._skipping = False
            return LineTooLong()
        if line.endswith(b"\r"):
            line = line[:-1]
        verb, _, argument = line.lstrip().partition(b" ")
        if b"\t" in verb:
            verb, _, argument = line.strip().partition(b"\t")
        return Command(verb.rstrip().upper(), argument.strip(), line)

    def _next_content(self) -> Content | None:
        buffer = self._buffer
        if self._start_of_line and buffer.startswith(b"."):
            if buffer.startswith(b".\r\n"):
                del buffer[:3]
                return self._content_done(b"")
            if len(buffer) < 3:
                return None
        end = buffer.find(_END, self._scan)
        if end >= 0:
            data = bytes(buffer[: end + 2])
            del buffer[: end + 5]
            return self._content_done(data)
        if len(buffer) < CHUNK:
            self._scan = max(0, len(buffer) - 4)
            return None
        # Cut behind a line end, where a following end mark is still recognised; a line without an end in all this is cut
        # before its last bytes (no line end can straddle that place: it would have been found).
        line_end = buffer.rfind(b"\r\n", 0, len(buffer) - 2)
        keep = line_end + 2 if line_end >= 0 else len(buffer) - 4
        data, bare = self._unstuff(bytes(buffer[:keep]))
        del buffer[:keep]
        self._scan = 0
        self._start_of_line = line_end >= 0
        return Content(data, False, bare)

    def _content_done(self, data: bytes) -> Content:
        data, bare = self._unstuff(data)
        self._scan = 0
        self._start_of_line = True
        return Content(data, True, bare)

    def _unstuff(self, data: bytes) -> tuple[bytes, bool]:
        if self._start_of_line and data.startswith(b"."):
            data = data[1:]
        if b"\r\n." in data:
            data = data.replace(b"\r\n.", b"\r\n")
        bare = data.count(b"\n") != data.count(b"\r\n")
        if bare:
            data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        return data, bare

    def _next_chunk(self) -> ChunkContent | None:
        buffer = self._buffer
        take = min(len(buffer), self._chunk_left)
        if take < self._chunk_left and take < CHUNK:
            return None
        data = bytes(buffer[:take])
        del buffer[:take]
        self._chunk_left -= take
        if self._chunk_left:
            return ChunkContent(data, False, False)
        self.state = State.BDAT
        return ChunkContent(data, True, self._chunk_last)
