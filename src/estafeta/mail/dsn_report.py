"""Building a delivery status notification: the multipart/report message, in the form in which Postfix writes it.

Source: RFC 3462, 3464, 6533 (internationalised types), and Postfix's notices as programs parse them. Pure: everything comes in
one ``Report``. The result is in wire form (CRLF), without the Received and Message-Id headers, which cleanup puts on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from estafeta.mail.address import quote_address
from estafeta.mail.date import rfc5322_date
from estafeta.mail.text import to_bytes, to_text

WIDTH = 79
_INDENT = "    "
_XTEXT = re.compile(rb"\+([0-9A-Fa-f]{2})")
_FROM = re.compile(r"(\S+)\s+\(([^()]*)\)\Z")


@dataclass(slots=True)
class Reported:
    """One recipient of a report. ``action`` is failed, delayed, delivered, relayed, expanded, deliverable or undeliverable."""

    address: bytes
    action: str
    dsn: str
    reason: str
    original: bytes = b""
    orcpt: bytes = b""  # xtext, with its type; empty: rfc822 and the original address
    mta: str = ""  # remote host
    diagnostic: str = ""  # its reply; empty: our own reason stands


@dataclass(slots=True)
class Report:
    """All that goes into a notice."""

    queue_id: str  # of the message that it is about
    sender: bytes  # of that message
    arrived_at: float  # Unix time, as are the other times
    now: float
    to: bytes
    subject: str
    header_from: str
    text: str  # expanded template text, LF; empty in copies to the postmaster
    myhostname: str
    mail_name: str
    recipients: list[Reported]
    charset: str = "us-ascii"
    eight_bit: bool = True
    utf8: bool = False  # the message asked for SMTPUTF8
    envid: bytes = b""  # xtext
    auto_submitted: str = "auto-replied"
    retry_until: float = 0.0  # 0: not retried
    part: str = "Undelivered Message"  # description of the returned part
    returned: bytes = b""  # wire form
    headers_only: bool = False
    extra_headers: list[tuple[str, str]] = field(default_factory=list)


def unxtext(data: bytes) -> bytes:
    """Undo RFC 3461 xtext; what is not well-formed stays."""
    return _XTEXT.sub(lambda match: bytes((int(match[1], 16),)), data)


def fold(text: str, width: int = WIDTH) -> str:
    """Cut ``text`` at blanks into lines of at most ``width`` columns; the second and all others are indented."""
    out: list[str] = []
    line = ""
    indent = ""
    for word in text.split():
        if not line:
            line = indent + word
        elif len(line) + 1 + len(word) <= width:
            line += " " + word
        else:
            out.append(line)
            indent = _INDENT
            line = indent + word
    out.append(line)
    return "\n".join(out)


def standard_from(value: str, hostname: str) -> str:
    """``ADDRESS (NAME)`` as ``NAME <ADDRESS>`` (header_from_format = standard)."""
    match = _FROM.match(value)
    if match is None:
        return value
    address = match[1] if "@" in match[1] else f"{match[1]}@{hostname}"
    return f"{match[2]} <{address}>"


def build(report: Report) -> bytes:
    """The whole notice."""
    boundary = f"{report.queue_id}.{int(report.now)}/{report.myhostname}"
    encoding = ["Content-Transfer-Encoding: 8bit"] if report.eight_bit else []
    lines = [
        f"Date: {rfc5322_date(report.now)}",
        f"From: {report.header_from}",
        f"Subject: {report.subject}",
        f"To: {to_text(quote_address(report.to))}",
        f"Auto-Submitted: {report.auto_submitted}",
        *(f"{name}: {value}" for name, value in report.extra_headers),
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
        *encoding,
        "",
        "This is a MIME-encapsulated message.",
        "",
        f"--{boundary}",
        "Content-Description: Notification",
        f"Content-Type: text/plain; charset={report.charset}",
        *encoding,
        "",
        *(report.text.rstrip("\n").split("\n") if report.text else []),
        "",
    ]
    for reported in report.recipients:
        lines += [*_for_people(reported).split("\n"), ""]
    lines += [f"--{boundary}", "Content-Description: Delivery report", *_status_type(report), ""]
    lines += _message_fields(report)
    for reported in report.recipients:
        lines += ["", *_recipient_fields(report, reported)]
    lines += ["", f"--{boundary}"]
    head = to_bytes("\r\n".join(lines)) + b"\r\n"
    if not report.returned:
        return head[:-2] + b"--\r\n"
    last = [f"Content-Description: {report.part}", f"Content-Type: {_returned_type(report)}", *encoding, ""]
    last.append(f"Return-Path: <{to_text(quote_address(report.sender))}>")
    content = report.returned if report.returned.endswith(b"\n") else report.returned + b"\r\n"
    return head + to_bytes("\r\n".join(last)) + b"\r\n" + content + to_bytes(f"\r\n--{boundary}--\r\n")


def _for_people(reported: Reported) -> str:
    address = to_text(quote_address(reported.address))
    original = ""
    if reported.original and reported.original.lower() != reported.address.lower():
        original = f" (expanded from <{to_text(quote_address(reported.original))}>)"
    return fold(f"<{address}>{original}: {reported.reason}")


def _status_type(report: Report) -> list[str]:
    if report.utf8:
        return ["Content-Type: message/global-delivery-status", "Content-Transfer-Encoding: 8bit"]
    return ["Content-Type: message/delivery-status"]


def _returned_type(report: Report) -> str:
    if report.utf8:
        return "message/global-headers" if report.headers_only else "message/global"
    return "text/rfc822-headers" if report.headers_only else "message/rfc822"


def _typed(report: Report, address: bytes) -> str:
    kind = "utf-8" if report.utf8 and not address.isascii() else "rfc822"
    return f"{kind}; {to_text(quote_address(address))}"


def _message_fields(report: Report) -> list[str]:
    fields = [f"Reporting-MTA: dns; {report.myhostname}"]
    if report.envid:
        fields.append(f"Original-Envelope-Id: {_one_line(to_text(unxtext(report.envid)))}")
    prefix = f"X-{report.mail_name}"
    fields.append(f"{prefix}-Queue-ID: {report.queue_id}")
    fields.append(f"{prefix}-Sender: {_typed(report, report.sender)}")
    fields.append(f"Arrival-Date: {rfc5322_date(report.arrived_at)}")
    return fields


def _recipient_fields(report: Report, reported: Reported) -> list[str]:
    fields = [f"Final-Recipient: {_typed(report, reported.address)}"]
    original = reported.original or reported.address
    kind = b"utf-8;" if report.utf8 and not original.isascii() else b"rfc822;"
    orcpt = unxtext(reported.orcpt) or kind + quote_address(original)
    fields.append(f"Original-Recipient: {_one_line(to_text(orcpt))}")
    fields.append(f"Action: {reported.action}")
    fields.append(f"Status: {reported.dsn}")
    if reported.mta:
        fields.append(f"Remote-MTA: dns; {reported.mta}")
    if reported.diagnostic.startswith("x-unix; "):
        code = reported.diagnostic
    else:
        source = "smtp" if reported.diagnostic else f"X-{report.mail_name}"
        code = f"{source}; {reported.diagnostic or reported.reason}"
    fields += fold(f"Diagnostic-Code: {code}").split("\n")
    if report.retry_until:
        fields.append(f"Will-Retry-Until: {rfc5322_date(report.retry_until)}")
    return fields


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def header_block(content: bytes, limit: int = 0) -> bytes:
    """The headers of wire-form ``content``, cut at a line end if they are longer than ``limit`` octets (0: no limit)."""
    if content.startswith(b"\r\n"):
        return b""
    end = content.find(b"\r\n\r\n")
    headers = content if end < 0 else content[: end + 2]
    if limit and len(headers) > limit:
        headers = headers[: headers.rfind(b"\n", 0, limit) + 1]
    return headers
