"""Headers: dropped, completed, rewritten; what the queue needs to know of them.

Source: cleanup(8), postconf(5) message_drop_headers, always_add_missing_headers, undisclosed_recipients_header, hopcount_limit,
RFC 5322 section 3.6. Only what has to change is touched: every other byte stays as it came.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from estafeta.daemons.cleanup.recipients import Mapping
from estafeta.daemons.cleanup.settings import Settings
from estafeta.ipc.messages import Envelope
from estafeta.mail.address import addresses_in, quote_address, rewrite_addresses
from estafeta.mail.date import rfc5322_date
from estafeta.mail.header import ADDRESS_HEADERS, SENDER_HEADERS, Header, split_headers
from estafeta.mail.rewrite import to_standard_form
from estafeta.mail.text import to_text
from estafeta.service.content_checks import Inspection

# One complete address with a dotted domain, alone or in brackets behind a plain name: nothing to rewrite.
_COMPLETE = re.compile(
    rb"[ \t]*(?:[A-Za-z0-9 ]*<)?[A-Za-z0-9_+.=-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+>?[ \t]*\r?\n"
)

_PHRASE = re.compile(rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff -]+")
_TO_ESCAPE = re.compile(rb'["\\]')


@dataclass(slots=True)
class HeaderResult:
    """The new header block (with the blank line that ends it), and what was seen in it."""

    block: bytes
    body_start: int
    message_id: str
    hops: int
    parts: list[bytes] = field(default_factory=list)


async def process(
    settings: Settings,
    mapping: Mapping,
    envelope: Envelope,
    content: bytes,
    received: bytes,
    *,
    remote: bool,
    inspection: Inspection | None = None,
) -> HeaderResult:
    """Process the headers of ``content``, with header checks if there is an ``inspection``; raises LookupFailed."""
    shift = 0
    mailbox_line = b""
    if content.startswith(b"From "):  # a mailbox file's separator, kept as a header
        shift = content.find(b"\n") + 1
        mailbox_line = b"X-Mailbox-Line: " + content[:shift]
        content = content[shift:]
    headers, position = split_headers(content)
    if position > settings.header_size_limit and any(
        header.end - header.start > settings.header_size_limit for header in headers
    ):
        before = len(content)
        content = _shortened(content, headers, settings.header_size_limit)
        shift += before - len(content)
        headers, position = split_headers(content)
    untouched: frozenset[int] = frozenset()
    if inspection is not None:
        if received:
            received = await inspection.received(received)
        changed = await inspection.primary(headers, content)
        if changed is not None:
            block, untouched = changed
            shift += position - len(block)
            content = block + content[position:]
            headers, position = split_headers(block)
            position = len(block)
    body_start = position
    blank = b"\r\n"
    if content.startswith(b"\r\n", position):
        body_start += 2
    elif content.startswith(b"\n", position):
        body_start += 1
    elif position >= len(content):
        blank = b""
    seen: set[bytes] = set()
    message_id = ""
    hops = 0
    out: list[bytes] = [received] if received else []
    if mailbox_line:
        out.append(mailbox_line)
    spaced = content.find(b" :", 0, position) >= 0 or content.find(b"\t:", 0, position) >= 0
    kept_from = 0  # start of the stretch of headers that go out as they came
    drop = settings.drop_headers
    for header in headers:
        if header.start in untouched:
            continue
        key = header.key
        seen.add(key)
        if key == b"received":
            hops += 1
        elif key == b"message-id":
            if not message_id:
                message_id = to_text(b" ".join(header.value.split()))
        elif key in drop:
            out.append(content[kept_from : header.start])
            kept_from = header.end
        elif key in ADDRESS_HEADERS and (settings.maps_headers or not _COMPLETE.fullmatch(header.value)):
            new = await _rewritten(settings, mapping, header, remote=remote)
            if new != header.value:
                out.append(content[kept_from : header.start])
                out.append(header.name + b":" + new)
                kept_from = header.end
        if spaced and kept_from <= header.start and content[header.start + len(header.name)] != 58:  # "Subject :"
            out.append(content[kept_from : header.start])
            out.append(header.name + b":" + header.value)
            kept_from = header.end
    if kept_from < position:
        out.append(content[kept_from:position])
    if not remote or settings.always_add_missing:
        added_id = _add_missing(settings, envelope, seen, out)
        message_id = message_id or added_id
    if settings.undisclosed and not seen & {b"to", b"cc", b"bcc", b"resent-to", b"resent-cc", b"resent-bcc"}:
        out.append(settings.undisclosed + b"\r\n")
    out.append(blank)  # none where the message ends with its headers
    return HeaderResult(b"".join(out), body_start + shift, message_id, hops)


def _shortened(content: bytes, headers: list[Header], limit: int) -> bytes:
    """header_size_limit: what a header has beyond it is thrown away."""
    out = []
    for header in headers:
        text = content[header.start : header.end]
        if len(text) > limit:  # counted with line feeds, as Postfix keeps it
            short = text.replace(b"\r\n", b"\n")[:limit]
            text = short.rstrip(b"\n").replace(b"\n", b"\r\n") + b"\r\n"
        out.append(text)
    out.append(content[headers[-1].end :])
    return b"".join(out)


def _add_missing(settings: Settings, envelope: Envelope, seen: set[bytes], out: list[bytes]) -> str:
    """Date, From and Message-Id for mail of our own users; the Message-Id that was made."""
    resent = b"resent-" if any(name.startswith(b"resent-") for name in seen) else b""
    title = b"Resent-" if resent else b""
    made = ""
    if resent + b"message-id" not in seen:
        made = f"<{message_stamp(envelope.arrived_at)}.{envelope.queue_id}@{to_text(settings.myhostname)}>"
        out.append(title + b"Message-Id: " + made.encode("utf-8", "surrogateescape") + b"\r\n")
    if resent + b"date" not in seen:
        out.append(title + b"Date: " + rfc5322_date(envelope.arrived_at).encode() + b"\r\n")
    if resent + b"from" not in seen:
        sender = envelope.sender or b"MAILER-DAEMON"
        address = quote_address(to_standard_form(settings.rules, sender))
        name = envelope.sender_original
        text = _from_text(address, name, settings.standard_from)
        if not envelope.sender:
            text = b"MAILER-DAEMON"
        out.append(title + b"From: " + text + b"\r\n")
    return "" if resent else made


def _from_text(address: bytes, name: bytes, standard: bool) -> bytes:
    """header_from_format: ``Name <address>`` with the name quoted where it is not made of atoms, or ``address (Name)``."""
    words = name.split()
    if not words:
        return address
    if not standard:
        return address + b" (" + name + b")"
    phrase = b" ".join(words)
    if not _PHRASE.fullmatch(phrase):
        phrase = b'"' + _TO_ESCAPE.sub(rb"\\\g<0>", name) + b'"'
    return phrase + b" <" + address + b">"


def message_stamp(when: float) -> str:
    """``20261122153318``: the time in a Message-Id, UTC."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(when, UTC).strftime("%Y%m%d%H%M%S")


async def _rewritten(settings: Settings, mapping: Mapping, header: Header, *, remote: bool) -> bytes:
    key = header.key
    if remote and not settings.rules.remote_domain and not settings.maps_headers:
        return header.value
    answers: dict[bytes, bytes] = {}

    def standard(address: bytes) -> bytes:
        return to_standard_form(settings.rules, address, remote=remote)

    if settings.maps_headers and not remote:
        sender = key in SENDER_HEADERS
        kind = "header_sender" if sender else "header_recipient"
        own = settings.sender_canonical if sender else settings.recipient_canonical
        classes = settings.sender_canonical_classes if sender else settings.recipient_canonical_classes
        for address in addresses_in(header.value):
            mapped = await mapping.canonical(
                standard(address), [(own, kind in classes), (settings.canonical, kind in settings.canonical_classes)]
            )
            answers[address] = await mapping.masquerade(mapped, kind)
    return rewrite_addresses(header.value, lambda address: answers.get(address) or standard(address))
