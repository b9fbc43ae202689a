"""XFORWARD: tell the next server whom this message came from.

Source: XFORWARD_README; man 5 postconf smtp_send_xforward_command; as observed from smtp(8), what is not known is not sent, and
there are two commands. Invariant: a line holds only attributes that the server offered.
"""

from __future__ import annotations

from estafeta.ipc.messages import Envelope
from estafeta.mail.address import address_literal
from estafeta.mail.text import to_bytes
from estafeta.protocol.smtp_client_commands import xtext


def xforward_commands(offered: str, envelope: Envelope) -> list[bytes]:
    """The command lines (without CRLF) for the attributes in ``offered``."""
    remote = envelope.client_address not in ("", "unknown")
    groups = (
        {"NAME": envelope.client_name, "ADDR": address_literal(envelope.client_address), "PORT": envelope.client_port},
        {
            "PROTO": envelope.protocol,
            "HELO": envelope.helo_name,
            "IDENT": envelope.queue_id if remote else "",
            "SOURCE": "REMOTE" if envelope.rewrite_context == "remote" else "LOCAL",
        },
    )
    wanted = set(offered.upper().split())
    lines: list[bytes] = []
    for group in groups:
        known = [(name, value) for name, value in group.items() if value not in ("", "unknown") and name in wanted]
        words = [f"{name}={xtext(to_bytes(value)).decode()}" for name, value in known]
        if words:
            lines.append(b"XFORWARD " + " ".join(words).encode())
    return lines
