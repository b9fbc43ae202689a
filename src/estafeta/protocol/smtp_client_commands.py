"""What an SMTP client writes: commands with their parameters, addresses quoted, content with dots doubled; and its options.

Source: RFC 5321 section 4.1, RFC 1870 (SIZE), 6152 (BODY), 3461 (DSN, xtext), 6531 (SMTPUTF8), 6533 (utf-8 addresses);
man 5 postconf (smtp_quote_rfc821_envelope, smtp_line_length_limit). Addresses are bytes in internal (unquoted) form.
Invariant: no command contains CR or LF inside.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_DOT_STRING = re.compile(rb"[^\x00-\x20\x7f()<>@,;:\\\".\[\]]+(?:\.[^\x00-\x20\x7f()<>@,;:\\\".\[\]]+)*\Z")
_QUOTED_SPECIAL = re.compile(rb'["\\\r\n]')
_NOT_XTEXT = re.compile(rb"[^!-*,-<>-~]")
_LINE_BREAKS = re.compile(rb"[\r\n]")


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """``helo_name`` is smtp_helo_name; ``pipelining`` false never pipelines; ``discard_keywords`` are lower case."""

    helo_name: bytes
    lmtp: bool = False
    pipelining: bool = True
    never_send_ehlo: bool = False
    quote_addresses: bool = True
    discard_keywords: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class EnvelopeRecipient:
    """A recipient: ``notify`` like ``SUCCESS,DELAY`` or empty; ``orcpt`` like ``rfc822;user@example`` (decoded) or
    empty.
    """

    address: bytes
    notify: bytes = b""
    orcpt: bytes = b""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What MAIL and RCPT say. ``size_bytes`` 0 says nothing; ``ret`` is FULL, HDRS or empty; ``envid`` is decoded."""

    sender: bytes
    recipients: Sequence[EnvelopeRecipient]
    size_bytes: int = 0
    eight_bit: bool = False
    smtputf8: bool = False
    ret: bytes = b""
    envid: bytes = b""
    auth_empty: bool = False


@dataclass(frozen=True, slots=True)
class Features:
    """What the server offered, by lower-case keyword; parameters as text. SIZE 0 means no fixed limit."""

    keywords: dict[str, str]
    server_name: str = ""

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.keywords

    @property
    def size_limit(self) -> int:
        """The largest message in bytes, 0 for no limit that is known."""
        value = self.keywords.get("size", "")
        return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else 0

    @property
    def auth_mechanisms(self) -> tuple[str, ...]:
        """The SASL mechanisms, as written."""
        return tuple(self.keywords.get("auth", "").split())


def parse_features(lines: Sequence[bytes], discard: frozenset[str] = frozenset()) -> Features:
    """Read the lines of a reply to EHLO; keywords in ``discard`` (lower case) are passed over."""
    keywords: dict[str, str] = {}
    name = lines[0][4:].decode("latin-1").split(" ", 1)[0] if lines else ""
    for line in lines[1:]:
        text = line[4:].decode("latin-1").replace("\t", " ").strip()
        keyword, _, parameters = text.partition(" ")
        if keyword[:5].lower() == "auth=":
            # The form of old Microsoft servers.
            keyword, parameters = "auth", f"{keyword[5:]} {parameters}"
        keyword = keyword.lower()
        if not keyword or keyword in discard:
            continue
        parameters = parameters.strip()
        if keyword == "auth" and keyword in keywords:
            parameters = " ".join(dict.fromkeys(f"{keywords[keyword]} {parameters}".split()))
        keywords[keyword] = parameters
    return Features(keywords, name)


@lru_cache(maxsize=1024)
def quote_address(address: bytes) -> bytes:
    """Return the address with its local part quoted where RFC 5321 wants it. Line breaks cannot be sent and go away."""
    local, at, domain = address.rpartition(b"@")
    if not at:
        local, domain = address, b""
    domain = _LINE_BREAKS.sub(b"", domain)
    if local and not _DOT_STRING.match(local):
        local = b'"' + _QUOTED_SPECIAL.sub(_escaped, local) + b'"'
    return local + at + domain


def _escaped(match: re.Match[bytes]) -> bytes:
    char = match[0]
    return b"" if char in b"\r\n" else b"\\" + char


def xtext(value: bytes) -> bytes:
    """Encode as RFC 3461 xtext."""
    return _NOT_XTEXT.sub(lambda match: b"+%02X" % match[0][0], value)


def unitext(value: bytes) -> bytes:
    """Encode a UTF-8 address as RFC 6533 utf-8-addr-xtext: characters beyond printable ASCII as ``\\x{HEX}``."""
    text = value.decode("utf-8", "replace")
    return "".join(
        char if "!" <= char <= "~" and char not in "+=\\" else f"\\x{{{ord(char):X}}}" for char in text
    ).encode("ascii")


def mail_command(envelope: Envelope, features: Features, *, quote: bool = True) -> bytes:
    """Return the MAIL command with what both the message needs and the server offers."""
    keywords = features.keywords
    parts = [b"MAIL FROM:<", _path(envelope.sender, quote), b">"]
    if envelope.size_bytes and "size" in keywords:
        parts.append(b" SIZE=%d" % envelope.size_bytes)
    if envelope.eight_bit and "8bitmime" in keywords:
        parts.append(b" BODY=8BITMIME")
    if "dsn" in keywords:
        if envelope.envid:
            parts.append(b" ENVID=" + xtext(envelope.envid))
        if envelope.ret:
            parts.append(b" RET=" + envelope.ret)
    if envelope.smtputf8 and "smtputf8" in keywords:
        parts.append(b" SMTPUTF8")
    if envelope.auth_empty and "auth" in keywords:
        parts.append(b" AUTH=<>")
    parts.append(b"\r\n")
    return b"".join(parts)


def rcpt_command(recipient: EnvelopeRecipient, features: Features, *, quote: bool = True) -> bytes:
    """Return the RCPT command of one recipient."""
    command = b"RCPT TO:<" + _path(recipient.address, quote) + b">"
    if "dsn" in features.keywords:
        kind, semicolon, address = recipient.orcpt.partition(b";")
        if semicolon:
            encode = unitext if kind.lower() == b"utf-8" else xtext
            command += b" ORCPT=" + kind + b";" + encode(address)
        if recipient.notify:
            command += b" NOTIFY=" + recipient.notify
    return command + b"\r\n"


def _path(address: bytes, quote: bool) -> bytes:
    return quote_address(address) if quote else _LINE_BREAKS.sub(b"", address)


def dot_stuff(content: bytes, *, dot_free: bool = False) -> bytes:
    """Return wire-form content (CRLF) ready for DATA, without the final dot.

    ``dot_free`` promises that no line starts with a dot. A missing last CRLF is added.
    """
    if not dot_free:
        if b"\r\n." in content:
            content = content.replace(b"\r\n.", b"\r\n..")
        if content.startswith(b"."):
            content = b"." + content
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"
    return content


def break_long_lines(content: bytes, limit: int) -> bytes:
    """Break lines of more than ``limit`` bytes with CRLF and a space (smtp_line_length_limit; 0 is no limit)."""
    if limit <= 0 or len(content) <= limit:
        return content
    lines = content.split(b"\r\n")
    if max(map(len, lines)) <= limit:
        return content
    return b"\r\n".join(_broken(line, limit) if len(line) > limit else line for line in lines)


def _broken(line: bytes, limit: int) -> bytes:
    step = max(1, limit - 1)
    pieces = [line[:limit]]
    pieces += [line[position : position + step] for position in range(limit, len(line), step)]
    return b"\r\n ".join(pieces)
