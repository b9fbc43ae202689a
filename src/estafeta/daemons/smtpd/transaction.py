"""What MAIL, RCPT, DATA and BDAT set. The only reset is to drop this object (RFC 5321 section 4.1.1.5)."""

from __future__ import annotations

from dataclasses import dataclass, field

from estafeta.daemons.smtpd.proxy import ProxyTransaction
from estafeta.ipc.channel import Link
from estafeta.ipc.messages import Recipient


@dataclass(slots=True)
class Transaction:
    """One mail transaction. ``queue_id`` is given with the first accepted recipient."""

    sender: bytes
    arrived_at: float
    queue_id: str = ""
    recipients: list[Recipient] = field(default_factory=list)
    declared_size: int = 0
    eight_bit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: bytes = b""
    parts: list[bytes] = field(default_factory=list)
    size: int = 0  # content octets so far
    lines: int = 0  # line ends in ``parts``
    dots: bool = False  # a line in ``parts`` starts with a dot
    too_big: bool = False
    stream: int = 0  # non-zero: content goes to cleanup in pieces, all of them on ``link``
    link: Link | None = None
    broken: bool = False  # cleanup was lost on the way: the rest is read and thrown away
    bare_newline: bool = False
    rejected_recipients: int = 0
    open_line: bool = False  # BDAT: the content so far does not end with a line end
    overshoot: int = 0  # recipients refused for smtpd_recipient_limit
    flags: int = 0
    content_filter: str = ""
    hold: bool = False
    sasl_sender: str | None = None  # what AUTH= of MAIL said; None without it
    mail_line: bytes = b""  # MAIL as it came, for the before-queue filter
    proxy: ProxyTransaction | None = None  # smtpd_proxy_filter: the message goes there and not to cleanup
