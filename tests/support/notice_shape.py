"""What two notices must have in common: headers, parts, fields, reasons; the prose is each system's own."""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from email.message import EmailMessage

from support import peers


def notice_shape(data: bytes) -> list[str]:
    """The lines to compare of a notice as it lies in the queue."""
    message = message_from_bytes(data, policy=policy.default)
    assert isinstance(message, EmailMessage)
    out = [f"{name}: {message[name]}" for name in ("From", "To", "Subject", "Auto-Submitted", "Content-Transfer-Encoding")]
    out.append(" ".join(message.keys()))
    people, *parts = message.iter_parts()
    out.append(str(people["Content-Type"]))
    text = people.get_payload(decode=True).decode()  # type: ignore[union-attr]
    out += [line for line in text.splitlines() if line.startswith("<")]
    for part in parts:
        raw = part.as_bytes().decode("utf-8", "replace")
        raw = re.sub(r"\(Postfix, from userid \d+\)", "(Postfix)", peers.normal(raw))
        out += raw.splitlines()
    return [re.sub(r"<\S+@mail\.example\.com>(?=\s*$)", "<ID>", line) for line in out]
