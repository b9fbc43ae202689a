"""What smtpd says to a before-queue filter, and of it: XFORWARD commands, log lines, the filter's address. Pure.

Source: SMTPD_PROXY_README, XFORWARD_README; as observed from smtpd(8), attributes that are not known are [UNAVAILABLE].
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from estafeta.daemons.smtpd.access import logged
from estafeta.daemons.smtpd.client_attributes import UNAVAILABLE
from estafeta.mail.address import address_literal
from estafeta.mail.text import to_bytes
from estafeta.protocol.smtp_client_commands import xtext

if TYPE_CHECKING:
    from estafeta.daemons.smtpd.session import Session

_LONGEST_COMMAND = 510  # octets without CRLF (XFORWARD_README, note 2)
_CODE = re.compile(rb"[2-5][0-9][0-9](?:[ -]|$)")
_XFORWARD = re.compile(rb"^250[- ]XFORWARD\s+(.*?)\r?$", re.MULTILINE | re.IGNORECASE)


def is_code(line: bytes) -> bool:
    """Whether the line begins as a line of a reply does."""
    return _CODE.match(line) is not None


def endpoint_of(text: str) -> tuple[str, str]:
    """(host, port) of ``host:port``, ``port``, ``inet:host:port``; (path, "") of ``unix:path``. Raises ValueError."""
    kind, colon, rest = text.partition(":")
    if colon and kind == "unix":
        if not rest:
            raise ValueError("unix: needs a path name")
        return rest, ""
    if colon and kind == "inet":
        text = rest
    host, _, port = text.rpartition(":")
    if not port:
        raise ValueError(f'"{text}" has no port (specify host:port, port or unix:path)')
    return host.removeprefix("[").removesuffix("]") or "localhost", port


def xforward_lines(session: Session, features: bytes) -> list[bytes]:
    """The commands for what the filter offers in its reply to EHLO."""
    offered = _XFORWARD.search(features)
    if offered is None:
        return []
    facts = session.facts
    values = {
        "NAME": facts.client_name,
        "ADDR": address_literal(facts.client_address),
        "PORT": session.port,
        "HELO": session.helo,
        "IDENT": "",
        "PROTO": session.protocol,
        "SOURCE": "LOCAL" if session.local_client else "REMOTE",
    }
    forwarded = session.forwarded
    if forwarded is not None:
        if forwarded.has_client:
            for name in ("NAME", "ADDR", "PORT", "HELO", "PROTO"):
                values[name] = forwarded.get(name, "")
            values["ADDR"] = address_literal(values["ADDR"])
        values["IDENT"] = forwarded.get("IDENT", "")
        values["SOURCE"] = forwarded.get("SOURCE", values["SOURCE"])
    wanted = offered[1].decode("latin-1").upper().split()
    lines: list[bytes] = []
    for name, value in values.items():
        if name not in wanted:
            continue
        coded = xtext(to_bytes(value)) if value not in ("", "unknown") else UNAVAILABLE.encode()
        word = b" " + name.encode() + b"=" + coded
        if lines and len(lines[-1]) + len(word) <= _LONGEST_COMMAND:
            lines[-1] += word
        else:
            lines.append(b"XFORWARD" + word)
    return lines


def event_line(session: Session, what: str, reply: str, recipient: bytes) -> str:
    """``proxy-accept: END-OF-MESSAGE: reply; from=<> to=<> proto= helo=<>``."""
    shown = "".join("?" if c < " " else c for c in reply)
    tail = f"from=<{logged(session.facts.sender or b'')}> to=<{logged(recipient)}> proto={session.protocol}"
    if session.helo:
        tail += f" helo=<{session.helo}>"
    return f"{what}: END-OF-MESSAGE: {shown}; {tail}"
