"""BDAT and smtpd_data_restrictions beside Postfix: asked once a transaction, with the first chunk, whatever came before in the session."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import peers
from support.ports import free_port

pytestmark = pytest.mark.skipif(peers.missing() is not None, reason=peers.missing() or "")

MAIN_CF = """\
myhostname = mail.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
notify_classes =
relay_domains = gone.test
transport_maps = inline:{ {gone.test = discard:} }
smtpd_relay_restrictions = reject_unauth_destination
smtpd_data_restrictions = check_sender_access inline:{ {bad@x.test = REJECT not you}, {later@x.test = DEFER not now},
    {away@x.test = 521 go away}, {noted@x.test = WARN seen} }
message_size_limit = 2000
smtpd_error_sleep_time = 0
"""
RCPT = b"RCPT TO:<b@gone.test>"
CHUNK, LAST, EMPTY, NONE = b"BDAT 14\r\nSubject: x\r\n", b"BDAT 4 LAST\r\n\r\n", b"BDAT 0 LAST", b"BDAT 0"
DATA = [b"DATA", b"Subject: x\r\n\r\n."]
HUGE = b"BDAT 3000\r\n" + b"x" * 2998


def _mail(sender: str) -> list[bytes]:
    return [b"MAIL FROM:<%s@x.test>" % sender.encode(), RCPT]


SESSIONS: dict[str, list[bytes]] = {
    "refused at once": [*_mail("bad"), LAST, *_mail("good"), LAST],
    "refused in chunks": [*_mail("bad"), CHUNK, CHUNK, LAST, b"NOOP", *_mail("good"), LAST],
    "behind DATA": [*_mail("good"), *DATA, *_mail("bad"), LAST, *_mail("good"), LAST],
    "behind DATA refused": [*_mail("bad"), b"DATA", b"RSET", *_mail("bad"), LAST],
    "DATA, then BDAT in one": [*_mail("bad"), b"DATA", LAST],
    "deferred": [*_mail("later"), CHUNK, LAST],
    "521": [*_mail("away"), CHUNK, b"NOOP"],
    "RSET": [*_mail("bad"), CHUNK, b"RSET", *_mail("good"), CHUNK, b"RSET", *_mail("bad"), LAST],
    "empty first chunk": [*_mail("noted"), NONE, NONE, CHUNK, EMPTY],
    "empty and refused": [*_mail("bad"), NONE, EMPTY],
    "too big and refused": [*_mail("bad"), HUGE, EMPTY],
    "no recipient": [_mail("bad")[0], LAST, RCPT],
    "no transaction": [CHUNK, CHUNK, b"NOOP", LAST, *_mail("good"), LAST],
    "empty, no transaction": [NONE, *_mail("good"), LAST, *_mail("good"), LAST],
    "empty, then others": [*_mail("good"), NONE, RCPT, b"DATA", b"RSET", *_mail("good"), LAST],
    "empty in the middle": [*_mail("good"), CHUNK, NONE, LAST, *_mail("good"), LAST],
    "MAIL in the middle": [*_mail("good"), CHUNK, _mail("good")[0], LAST],
    "other commands between": [*_mail("bad"), CHUNK, RCPT, b"DATA", b"MAIL FROM:<good@x.test>", LAST],
}  # fmt: skip


@pytest.fixture
def place() -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="bdat-"))
    base.chmod(0o755)
    yield base
    shutil.rmtree(base, ignore_errors=True)


def _log_of(text: str) -> list[str]:
    kept = re.findall(r"smtpd\[\d+\]: (.*(?:reject|warn|disconnect|lost|too many).*)", text)
    return [re.sub(r"(\[127\.0\.0\.1\]):\d+", r"\1", peers.normal(line)) for line in kept if "127.0.0.1" in line or "QUEUEID" in peers.normal(line)]


def test_data_restrictions(place: Path) -> None:
    replies: dict[str, dict[str, list[str]]] = {}
    logs: dict[str, list[str]] = {}
    for name in peers.NAMES:
        port = free_port()
        system = peers.Peer(name, place / name, MAIN_CF, f"127.0.0.1:{port} inet n - n - - smtpd\n")
        system.start()
        replies[name] = {}
        try:
            for number, (case, commands) in enumerate(SESSIONS.items(), 1):
                talk = peers.Conversation(peers.connect("127.0.0.1", port))
                talk.reply()
                said = [talk.ask(command) for command in (b"EHLO c.test", *commands, b"QUIT")]
                talk.close()
                replies[name][case] = [peers.normal(reply) for reply in said]
                system.wait_log("disconnect from", count=number)
            logs[name] = _log_of(system.log())
        finally:
            system.stop()
    for case in SESSIONS:
        assert replies["estafeta"][case] == replies["postfix"][case], case
    assert logs["estafeta"] == logs["postfix"]
