"""What an SMTP client machine tells its caller, and the table of its states.

Source: RFC 5321 section 3 (order of commands), RFC 2033, RFC 3207. Invariant: a state changes only by a row of
TRANSITIONS.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from estafeta.protocol.smtp_client_commands import Features
from estafeta.protocol.smtp_client_phase import Phase
from estafeta.protocol.smtp_reply import SmtpReply


class State(Enum):
    """Where the session is."""

    GREETING = auto()
    GREETED = auto()
    HELLO = auto()
    READY = auto()
    TRANSACTION = auto()
    CONTENT = auto()
    ENDING = auto()
    RESETTING = auto()
    ASKING = auto()
    STOPPED = auto()
    QUITTING = auto()
    CLOSED = auto()


class Move(Enum):
    """What changes the state."""

    GREETED = auto()
    SAY_HELLO = auto()
    ACCEPTED = auto()
    BEGIN = auto()
    GO_AHEAD = auto()
    END_CONTENT = auto()
    OVER = auto()
    RESET = auto()
    ASK = auto()
    STOP = auto()
    RESTART = auto()
    QUIT = auto()
    CLOSE = auto()


TRANSITIONS: dict[tuple[State, Move], State] = {
    (State.GREETING, Move.GREETED): State.GREETED,
    (State.GREETED, Move.SAY_HELLO): State.HELLO,
    (State.READY, Move.SAY_HELLO): State.HELLO,
    (State.HELLO, Move.ACCEPTED): State.READY,
    (State.READY, Move.BEGIN): State.TRANSACTION,
    (State.TRANSACTION, Move.GO_AHEAD): State.CONTENT,
    (State.TRANSACTION, Move.END_CONTENT): State.ENDING,
    (State.TRANSACTION, Move.OVER): State.READY,
    (State.CONTENT, Move.END_CONTENT): State.ENDING,
    (State.ENDING, Move.OVER): State.READY,
    (State.READY, Move.RESET): State.RESETTING,
    (State.RESETTING, Move.ACCEPTED): State.READY,
    (State.READY, Move.ASK): State.ASKING,
    (State.ASKING, Move.ASK): State.ASKING,
    (State.ASKING, Move.ACCEPTED): State.READY,
    (State.ASKING, Move.STOP): State.STOPPED,
    (State.STOPPED, Move.RESTART): State.READY,
    (State.GREETING, Move.QUIT): State.QUITTING,
    (State.GREETED, Move.QUIT): State.QUITTING,
    (State.HELLO, Move.QUIT): State.QUITTING,
    (State.READY, Move.QUIT): State.QUITTING,
    (State.RESETTING, Move.QUIT): State.QUITTING,
    (State.ASKING, Move.QUIT): State.QUITTING,
    **{(state, Move.CLOSE): State.CLOSED for state in State},
}


@dataclass(frozen=True, slots=True)
class Greeting:
    """The first reply. ``extended`` tells whether it contains the word ESMTP (smtp_always_send_ehlo = no)."""

    reply: SmtpReply
    extended: bool


@dataclass(frozen=True, slots=True)
class HelloDone:
    """EHLO, HELO or LHLO was accepted; without ``extended`` it was HELO and there are no features."""

    reply: SmtpReply
    features: Features
    extended: bool


@dataclass(frozen=True, slots=True)
class HelloRefused:
    """The last form of hello that can be tried was refused, or the server said 421."""

    reply: SmtpReply
    phase: Phase


@dataclass(frozen=True, slots=True)
class CommandReply:
    """The reply to a command of ``ask`` (AUTH and its answers, XFORWARD, STARTTLS ...)."""

    phase: Phase
    reply: SmtpReply


@dataclass(frozen=True, slots=True)
class SenderResult:
    """The reply to MAIL. If it refuses, no RecipientResult follows."""

    reply: SmtpReply


@dataclass(frozen=True, slots=True)
class RecipientResult:
    """The reply to RCPT of recipient ``index`` of the envelope."""

    index: int
    reply: SmtpReply


@dataclass(frozen=True, slots=True)
class DataReady:
    """Send the content now; ``accepted`` are the indexes of the recipients that it is for."""

    accepted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DataRefused:
    """DATA got something else than 354 although recipients were accepted."""

    reply: SmtpReply
    accepted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MessageDone:
    """The reply to the end of the content; for LMTP one event for each accepted recipient."""

    reply: SmtpReply
    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TransactionOver:
    """All replies are in; ``delivered`` tells whether the content got its final reply, good or bad."""

    delivered: bool


@dataclass(frozen=True, slots=True)
class ResetDone:
    """The reply to RSET."""

    reply: SmtpReply


@dataclass(frozen=True, slots=True)
class QuitDone:
    """The reply to QUIT; the server will close."""

    reply: SmtpReply


@dataclass(frozen=True, slots=True)
class Unsolicited:
    """A reply that nothing was asked for (421 of an idle server). The session must be closed."""

    reply: SmtpReply


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The server closed while replies were due; ``phase`` is the first of them."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class Closed:
    """The server closed while nothing was due."""


@dataclass(frozen=True, slots=True)
class ProtocolError:
    """The server does not speak SMTP; the session is closed."""

    text: str
    phase: Phase


Event = (
    Greeting
    | HelloDone
    | HelloRefused
    | CommandReply
    | SenderResult
    | RecipientResult
    | DataReady
    | DataRefused
    | MessageDone
    | TransactionOver
    | ResetDone
    | QuitDone
    | Unsolicited
    | ConnectionLost
    | Closed
    | ProtocolError
)
