"""The server side of SMTP as a machine: bytes in, events out; no socket, no clock.

Source: RFC 5321 sections 4.1 and 4.5, RFC 3030 (BDAT), RFC 2920 (PIPELINING). postconf(5) line_length_limit,
smtpd_forbid_bare_newline.
Owns: cutting the stream into commands and message content, dot-unstuffing, which command may follow which.
Invariants: only <CR><LF>.<CR><LF> ends a message; lines are cut at the limit, and refused contents still consumed to their end;
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

    __hash__ = object.__hash__  # Enum's own is a Python function, and the table below is asked for every command

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


class Content(NamedTuple):
    """Message content, unstuffed, CRLF line ends. ``last``: the message is complete.

    What was seen on the way is told, so that nobody has to look again: the number of line ends, whether a line starts with a
    dot, whether there were line feeds without a carriage return.
    """

    data: bytes
    last: bool
    bare_newline: bool
    lines: int
    dots: bool


class ChunkContent(NamedTuple):
    """Content that came by BDAT; ``end`` closes the chunk, ``last`` (with ``end``) the message. The rest as in Content."""

    data: bytes
    end: bool
    last: bool
    bare_newline: bool
    lines: int
    dots: bool


Event = Command | Content | ChunkContent


class SmtpServer:
    """One conversation. Feed with ``receive_data``, ask with ``next_event`` until it gives None."""

    __slots__ = (
        "_buffer", "_chunk_last", "_chunk_left", "_dots_before", "_held", "_kept", "_limit", "_scan", "_skipping", "_start_of_line",
        "state",
    )  # fmt: skip

    def __init__(self, line_length_limit: int = 2048) -> None:
        self.state = State.START
        self._buffer = bytearray()
        self._limit = line_length_limit
        self._scan = 0  # everything before this has been searched for the end
        self._start_of_line = True  # DATA: the buffer starts at the start of a line
        self._skipping = False
        self._kept = b""  # the start of a line that is too long: the rest of it is thrown away
        self._chunk_left = 0
        self._chunk_last = False
        self._dots_before = False  # DATA: a line that starts with a dot lies before ``_scan``
        self._held = b""  # BDAT: a carriage return at the end of a piece

    def receive_data(self, data: bytes) -> None:
        """Take what came from the client."""
        self._buffer += data

    @property
    def has_input(self) -> bool:
        """True if bytes wait that have not been read as a command: the client pipelines."""
        return bool(self._buffer)

    @property
    def in_content(self) -> bool:
        """True while message content is read, not commands."""
        return self.state is State.DATA or self.state is State.CHUNK

    def peek(self, most: int) -> bytes:
        """The first bytes of the unread input."""
        return bytes(self._buffer[:most])

    @property
    def unread(self) -> int:
        """How many bytes wait."""
        return len(self._buffer)

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
            return b"503 5.5.1 Error: " + verb + b" after BDAT"
        if self.state is State.MAIL and verb in (b"DATA", b"BDAT"):
            return b"554 5.5.1 Error: no valid recipients"
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

    def refuse_empty_chunk(self) -> None:
        """BDAT 0 without LAST: nothing follows, and what comes next must be a chunk all the same."""
        self.state = State.BDAT

    def end_transaction(self) -> None:
        """The transaction is over (delivered, refused, RSET): back to where MAIL may come."""
        if self.state is not State.STOP:
            self.state = State.READY

    def restart(self) -> None:
        """Begin anew (after STARTTLS): nothing that came before counts, read or unread."""
        self.state = State.START
        self._buffer.clear()
        self._scan = 0
        self._skipping = False
        self._kept = self._held = b""

    def begin_again(self) -> None:
        """Begin anew (after XCLIENT); what was pipelined behind the command stays."""
        self.state = State.START

    def stop(self) -> None:
        """Read nothing more."""
        self.state = State.STOP

    def next_line(self, limit: int) -> tuple[bytes, bool] | None:
        """A line that is no command (a client's part of AUTH) without its end, and whether it was longer than ``limit``."""
        buffer = self._buffer
        end = buffer.find(b"\n")
        if end < 0:
            if len(buffer) > limit + 1:
                self._skipping = True
                buffer.clear()
            return None
        line = bytes(buffer[:end])
        del buffer[: end + 1]
        self._scan = 0
        too_long, self._skipping = self._skipping, False
        if line.endswith(b"\r"):
            line = line[:-1]
        return (b"", True) if too_long or len(line) > limit else (line, False)

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
                self._kept = bytes(buffer[: self._limit])
                buffer.clear()
                self._scan = 0
            else:
                self._scan = len(buffer)
            return None
        self._scan = 0
        line = bytes(buffer[:end])
        del buffer[: end + 1]
        if self._skipping:
            self._skipping = False
            line, self._kept = self._kept, b""
        line = line[: self._limit]
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
                return self._content(b"", True, False)
            if len(buffer) < 3:
                return None
        # One search serves both: without a line that starts with a dot there is neither an end nor anything stuffed.
        dot = buffer.find(b"\r\n.", self._scan)
        end = buffer.find(_END, dot) if dot >= 0 else -1
        if end >= 0:
            with memoryview(buffer) as view:
                data = bytes(view[: end + 2])
            del buffer[: end + 5]
            return self._content(data, True, self._dots_before or dot < end)
        size = len(buffer)
        if dot >= 0:
            self._dots_before = True
        if size < CHUNK:
            self._scan = max(0, size - 4)
            return None
        # Cut behind a line end, where a following end mark is still recognised; a line without an end in all this is cut
        # before its last bytes (no line end can straddle that place: it would have been found).
        line_end = buffer.rfind(b"\r\n", 0, size - 2)
        keep = line_end + 2 if line_end >= 0 else size - 4
        with memoryview(buffer) as view:
            data = bytes(view[:keep])
        del buffer[:keep]
        content = self._content(data, False, self._dots_before)
        self._start_of_line = line_end >= 0
        self._scan = 0
        self._dots_before = False
        return content

    def _content(self, data: bytes, last: bool, stuffed: bool) -> Content:
        """Take the stuffing away and say what is in it."""
        dots = False
        if self._start_of_line and data.startswith(b"."):
            data = data[1:]
            dots = data.startswith(b".")
        if stuffed:
            data = data.replace(b"\r\n.", b"\r\n")
            dots = dots or b"\r\n." in data
        if last:
            self._scan = 0
            self._start_of_line = True
            self._dots_before = False
        data, bare, lines, more_dots = _in_wire_form(data)
        return Content(data, last, bare, lines, dots or more_dots)

    def _next_chunk(self) -> ChunkContent | None:
        buffer = self._buffer
        take = min(len(buffer), self._chunk_left)
        if take < self._chunk_left and take < CHUNK:
            return None
        data = self._held + bytes(buffer[:take])
        del buffer[:take]
        self._chunk_left -= take
        end = self._chunk_left == 0
        last = end and self._chunk_last
        self._held = b""
        if data.endswith(b"\r") and not last:
            self._held = b"\r"  # its line feed may come with the next piece
            data = data[:-1]
        if end:
            self.state = State.BDAT
        if last:
            self._held = b""
        dots = b"\r\n." in data or (self._start_of_line and data.startswith(b"."))
        if data:
            self._start_of_line = data.endswith(b"\n")
        if last:
            self._start_of_line = True
        data, bare, lines, more_dots = _in_wire_form(data)
        return ChunkContent(data, end, last, bare, lines, dots or more_dots)


def _in_wire_form(data: bytes) -> tuple[bytes, bool, int, bool]:
    """(content with CRLF line ends, had it others, how many line ends, does a line start with a dot because of that)."""
    lines = data.count(b"\n")
    if lines == data.count(b"\r\n"):
        return data, False, lines, False
    data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return data, True, lines, b"\r\n." in data
