"""Which replies are of which class, and what of a command is kept."""

from __future__ import annotations

import pytest

from estafeta.daemons.smtpd.events import class_of, note_command, note_reply
from estafeta.mail.transcript import Transcript


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (b"554 5.7.1 <a@b>: Relay access denied", "policy"),
        (b"450 4.7.1 <a@b>: Sender address rejected: later", "policy"),
        (b"552 5.3.4 Message size exceeds fixed limit", "policy"),
        (b"552 5.3.4 Error: message file too big", "bounce"),
        (b"550 5.1.1 <a@b>: Recipient address rejected: User unknown", "bounce"),
        (b"554 5.4.0 Error: too many hops", "bounce"),
        (b"500 5.5.2 Error: command not recognized", "protocol"),
        (b"503 5.7.0 Error: access denied for unknown[1.2.3.4]", "policy"),
        (b"452 4.3.1 Insufficient system storage", "resource"),
        (b"452 4.5.3 Error: too many recipients", ""),
        (b"451 4.3.0 Error: internal error", "software"),
        (b"451 4.3.0 <a@b>: Temporary lookup failure", "data"),
        (b"451 4.3.5 Server configuration error", "data"),
        (b"421 4.4.2 mail Error: timeout exceeded", ""),
        (b"421 4.7.0 mail Error: too many errors", ""),
        (b"421 4.7.0 mail Error: too many connections from 1.2.3.4", "policy"),
        (b"459 <x>: service unavailable", ""),
    ],
)
def test_classes(reply: bytes, kind: str) -> None:
    assert class_of(reply) == kind


def test_secrets_are_not_kept() -> None:
    transcript = Transcript()
    note_command(transcript, b"AUTH PLAIN c2VjcmV0", is_auth=True, may_be_secret=False)
    note_reply(transcript, b"334 Y2hhbGxlbmdl")
    note_command(transcript, b"c2VjcmV0", is_auth=False, may_be_secret=True)
    text = "\n".join(transcript.lines())
    assert "c2VjcmV0" not in text and "Y2hhbGxlbmdl" not in text
    assert text.count("(not shown)") == 3
