"""Every request and reply that Estafeta's processes send one another, and the envelope that the spool stores.

Fields of these array-like structs may only be appended, with defaults: a restarted half of the system must read what the
other half wrote. Addresses and content are ``bytes`` (they may hold anything a client sent); names and texts are ``str``.
Must stay uncompiled (mypyc drops ``array_like`` silently).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

import msgspec

# DSN NOTIFY bits (RFC 3461 section 4.1); 0 means that the client said nothing.
NOTIFY_NEVER = 1
NOTIFY_SUCCESS = 2
NOTIFY_FAILURE = 4
NOTIFY_DELAY = 8


class ContentFlag(IntFlag):
    """What is known about a message without reading it again."""

    NO_DOT_LINES = 1  # no line starts with a dot: SMTP may send it as it is
    EIGHT_BIT = 2  # BODY=8BITMIME was declared
    SMTPUTF8 = 4  # SMTPUTF8 was asked for
    RESUBMITTED = 8  # came back through the queue (postsuper -r)
    TRACE = 16  # sendmail -bv: report the deliveries, deliver nothing
    VERBOSE_TRACE = 32  # sendmail -v: deliver and report
    POSTMASTER_NOTICE = 64
    PROBE = 128  # verify(8) asks: results go there, and nowhere else


class Recipient(msgspec.Struct, array_like=True):
    """One recipient: where it goes now, what was asked for, and what the sender wants to hear of it."""

    address: bytes
    original: bytes = b""  # before aliases and rewriting; empty: the same
    notify: int = 0
    orcpt: bytes = b""  # RFC 3461 ORCPT, still xtext-encoded: type;address
    reason: str = ""  # of the last failed attempt
    status: str = ""  # its enhanced status code


class Envelope(msgspec.Struct, array_like=True):
    """All that the queue knows of a message beside its content."""

    queue_id: str
    arrived_at: float  # Unix time
    sender: bytes
    recipients: list[Recipient]
    size: int = 0  # content bytes, CRLF counted
    flags: int = 0
    envid: bytes = b""  # RFC 3461
    ret: str = ""  # FULL, HDRS or empty
    client_name: str = ""
    client_address: str = ""
    client_port: str = ""
    helo_name: str = ""
    protocol: str = ""
    content_filter: str = ""
    sasl_method: str = ""
    sasl_username: str = ""
    sasl_sender: str = ""
    rewrite_context: str = "local"
    reverse_client_name: str = ""
    attempts: int = 0
    next_try_at: float = 0.0
    warned: bool = False  # the delay warning has been sent
    hold: bool = False
    log_size: int = 0  # no longer used: Postfix's size, too, counts two octets for each line end
    redirect: bytes = b""
    sender_original: bytes = b""


class Place(msgspec.Struct, array_like=True, frozen=True):
    """Where the spool keeps a message: opaque to everybody but the spool."""

    segment: str
    offset: int
    length: int  # of the whole record
    content_offset: int  # absolute, in the segment
    content_length: int


# --- cleanup -----------------------------------------------------------------------------------------------------------


class CleanupFlag(IntFlag):
    """What cleanup is to do with a message, by where it comes from."""

    BOUNCE = 1  # bounce it itself when it is bad (pickup); else tell the caller
    FILTER = 2  # header and body checks
    MAP = 4  # canonical, virtual alias, masquerade
    BCC = 8  # always_bcc and the bcc maps
    EXTERNAL = BOUNCE | FILTER | MAP | BCC
    INTERNAL = 16  # a notice of our own
    DISCARD = 32  # accept it and throw it away (access(5) DISCARD)


class Enqueue(msgspec.Struct, array_like=True, tag=1):
    """A message for the queue. ``more``: Chunk messages with the same ``stream`` number follow."""

    envelope: Envelope
    content: bytes
    flags: int
    received: bytes = b""  # the Received header to put on top
    more: bool = False
    stream: int = 0
    header_from_local: bool = True  # rewrite header addresses (local_header_rewrite_clients)
    lines: int = -1  # line ends in ``content``, if the sender has counted them
    dots: bool = True  # may a line of ``content`` start with a dot?


class Chunk(msgspec.Struct, array_like=True, tag=2):
    """More content of a large message; ``last`` ends it, ``abort`` throws it away (no reply then)."""

    stream: int
    data: bytes
    last: bool = False
    abort: bool = False
    lines: int = -1
    dots: bool = True


class CleanupStatus(IntEnum):
    """How cleanup ended, with the meaning of the reply that smtpd gives."""

    OK = 0
    REJECTED = 1  # by header or body checks: 550 5.7.1
    TOO_BIG = 2  # 552 5.3.4
    NO_SPACE = 3  # 452 4.3.1
    WRITE_ERROR = 4  # 451 4.3.0
    HOPS = 5  # 554 5.4.0
    NO_RECIPIENTS = 6  # 550 5.1.0
    DISCARDED = 7  # accepted and thrown away
    EXPANSION = 8  # tables that lead nowhere: 451 4.6.0


class EnqueueReply(msgspec.Struct, array_like=True, tag=3):
    """The answer to Enqueue (to its last Chunk when streamed)."""

    status: int
    queue_id: str
    reason: str = ""
    dsn: str = ""


# --- qmgr --------------------------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, array_like=True, tag=10):
    """A cleanup worker introduces itself: the queue manager reads from disk what it has not been told of."""

    pid: int


class Arrived(msgspec.Struct, array_like=True, tag=11):
    """A message is safe in the spool."""

    place: Place
    envelope: Envelope


class QueueCommand(msgspec.Struct, array_like=True, tag=12):
    """From postqueue, postsuper and flush: ``verb`` is scan, flush, flush_one, forget or active."""

    verb: str
    arguments: list[str] = []


class QueueCommandReply(msgspec.Struct, array_like=True, tag=13):
    ok: bool
    lines: list[str] = []


# --- trivial-rewrite ---------------------------------------------------------------------------------------------------


class Resolve(msgspec.Struct, array_like=True, tag=20):
    """Where does mail for ``address`` go? ``verify`` asks with the address_verify_* parameters."""

    address: bytes
    sender: bytes = b""
    verify: bool = False


class AddressClass(IntEnum):
    """postconf ADDRESS_CLASS_README."""

    LOCAL = 1
    VIRTUAL_ALIAS = 2
    VIRTUAL_MAILBOX = 3
    RELAY = 4
    DEFAULT = 5


class Route(msgspec.Struct, array_like=True, tag=21):
    """The answer to Resolve."""

    transport: str
    nexthop: str
    recipient: bytes
    address_class: int
    failed: bool = False  # temporary failure: a table could not be asked
    error: str = ""  # the address is not valid (goes to error transport by itself)


class Rewrite(msgspec.Struct, array_like=True, tag=22):
    """Put an address into standard form; ``context`` is local or remote."""

    context: str
    address: bytes


class Rewritten(msgspec.Struct, array_like=True, tag=23):
    address: bytes


# --- delivery agents ---------------------------------------------------------------------------------------------------


class DeliverRequest(msgspec.Struct, array_like=True, tag=30):
    """Deliver one message to some recipients that share transport and next hop."""

    place: Place
    envelope: Envelope  # its ``recipients`` are those of this request only
    transport: str
    nexthop: str
    started_at: float  # when qmgr took the message up (for delays=)
    queued_at: float
    trace: bool = False
    more: bool = False  # the queue manager has more for this destination than it may send now


class Outcome(IntEnum):
    SENT = 1
    DEFERRED = 2
    BOUNCED = 3


class RecipientResult(msgspec.Struct, array_like=True):
    """How it went for recipient number ``index`` of the request."""

    index: int
    outcome: int
    dsn: str
    reason: str
    mta: str = ""  # remote MTA name, for notices
    diagnostic: str = ""  # the remote reply (Diagnostic-Code: smtp; ...), or a command's words with their type (x-unix; ...)
    action: str = ""  # delivered, relayed or expanded when SENT


class DeliverReply(msgspec.Struct, array_like=True, tag=31):
    """Results; a recipient without one is deferred. ``site_dead`` slows the whole destination down."""

    results: list[RecipientResult]
    site_dead: str = ""  # non-empty: the destination could not be reached at all, with the reason
    site_dsn: str = ""


# --- bounce ------------------------------------------------------------------------------------------------------------


class NoticeKind(IntEnum):
    FAILURE = 1  # undeliverable
    DELAY = 2
    SUCCESS = 3


class NoticeRecipient(msgspec.Struct, array_like=True):
    recipient: Recipient
    result: RecipientResult


class Notice(msgspec.Struct, array_like=True, tag=40):
    """Tell the sender (or the postmaster) of ``envelope`` what became of some recipients."""

    kind: int
    place: Place
    envelope: Envelope
    recipients: list[NoticeRecipient]


class NoticeReply(msgspec.Struct, array_like=True, tag=41):
    ok: bool
    queue_id: str = ""


# --- verify ------------------------------------------------------------------------------------------------------------


class VerifyStatus(IntEnum):
    """What is known of an address; the numbers are in the cache."""

    OK = 0
    DEFER = 1
    BOUNCE = 2
    TODO = 3  # nothing yet


class VerifyQuery(msgspec.Struct, array_like=True, tag=50):
    """Is mail for ``address`` deliverable? The answer may take ``wait_s`` seconds."""

    address: bytes
    wait_s: float = 0.0


class VerifyReply(msgspec.Struct, array_like=True, tag=51):
    status: int
    text: str = ""


class VerifyUpdate(msgspec.Struct, array_like=True, tag=52):
    """What a probe met (no answer)."""

    address: bytes
    status: int
    text: str = ""


# --- anvil -------------------------------------------------------------------------------------------------------------


class AnvilEvent(msgspec.Struct, array_like=True, tag=60):
    """A client (``service:address``) did something: connect, message, recipient, auth or newtls."""

    kind: str
    client: str


class AnvilReply(msgspec.Struct, array_like=True, tag=61):
    """Its open connections, and how often it did this in the present time unit."""

    count: int
    rate: int


class AnvilDisconnect(msgspec.Struct, array_like=True, tag=62):
    """One of its connections has ended (no answer)."""

    client: str


# --- general -----------------------------------------------------------------------------------------------------------


class Retire(msgspec.Struct, array_like=True, tag=98):
    """The service will end once this connection has: use a new one for everything that is not under way."""


class Refused(msgspec.Struct, array_like=True, tag=99):
    """The service met something it did not expect; always temporary."""

    reason: str


Message = (
    Enqueue | Chunk | EnqueueReply | Hello | Arrived | QueueCommand | QueueCommandReply | Resolve | Route | Rewrite
    | Rewritten | DeliverRequest | DeliverReply | Notice | NoticeReply | VerifyQuery | VerifyReply | VerifyUpdate
    | AnvilEvent | AnvilReply | AnvilDisconnect
    | Retire | Refused
)  # fmt: skip
