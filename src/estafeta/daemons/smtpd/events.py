"""Which of the notify_classes a reply of smtpd belongs to, and what of a command may be kept for the transcript.

Source: postconf(5) notify_classes; which reply is of which class as observed from smtpd(8).
"""

from __future__ import annotations

from estafeta.mail.transcript import SECRET, Transcript, without_secrets

KINDS = frozenset(("bounce", "policy", "protocol", "resource", "software", "data"))

# The first that fits decides; what fits none is a matter of policy.
_CLASSES: tuple[tuple[tuple[bytes, ...], str], ...] = (
    ((b"421 4.3.2", b"421 4.4.2", b"452 4.5.3", b"458 ", b"459 "), ""),
    ((b"452 4.3.1", b"451 4.3.0 Error: queue file write error"), "resource"),
    ((b"451 4.3.5",), "data"),
    ((b"503 5.7.0",), "policy"),
    ((b"500 ", b"501 ", b"502 ", b"503 ", b"504 ", b"555 ", b"554 5.5.", b"550 5.5.2", b"521 5.5."), "protocol"),
    ((b"550 5.1.", b"450 4.1.1 ", b"552 5.3.4 Error:", b"554 5.4.0", b"551 5.0.0"), "bounce"),
    ((b"454 4.7.0 TLS",), "software"),
)


def class_of(reply: bytes) -> str:
    """The class of a 4xx or 5xx reply; "" for those that nobody is told of."""
    for starts, kind in _CLASSES:
        if reply.startswith(starts):
            return kind
    if reply.startswith(b"451 4.3.0"):
        return "data" if b"lookup" in reply else "software"
    if reply.startswith(b"421 4.7.0") and reply.endswith(b"Error: too many errors"):
        return ""
    return "policy"


def note_reply(transcript: Transcript, line: bytes) -> None:
    """smtpd says ``line``."""
    if line[:1] in b"45":
        kind = class_of(line)
        if kind:
            transcript.classes.add(kind)
    elif line.startswith(b"334"):
        line = b"334 " + SECRET
    transcript.sent(line)


def note_command(transcript: Transcript, line: bytes, *, is_auth: bool, may_be_secret: bool) -> None:
    """The client says ``line``."""
    if is_auth:
        line = without_secrets(line)
    elif may_be_secret:
        line = SECRET
    transcript.got(line)
