"""8-bit mail for a server without 8BITMIME, beside Postfix: the same bytes go out."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import peers
from support.ports import free_port
from support.smtp_sink import SmtpSink
from support.smtp_sink_thread import SinkThread

pytestmark = pytest.mark.skipif(peers.missing() is not None, reason=peers.missing() or "")

MAIN_CF = """\
myhostname = mail.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
alias_maps =
notify_classes =
smtpd_relay_restrictions = permit_mynetworks, reject
disable_dns_lookups = yes
default_transport = smtp:[127.0.0.1]:{sink}
disable_mime_output_conversion = {disabled}
"""
HEAD = b"From: a@x.test\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-Id: <1@x.test>\r\nSubject: s\r\nMIME-Version: 1.0\r\n"
MESSAGES = [
    HEAD + b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ncaf\xc3\xa9 = \r\n.\r\n\xff\r\n",
    HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\npre\r\n"
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xc3\xa9\r\n"
    b"--b\r\n\r\nplain\r\n--b--\r\nepi\r\n",
    HEAD + b"Content-Type: text/plain\r\nContent-Transfer-Encoding: 7bit\r\n\r\nplain\r\n",
]


@pytest.fixture
def place() -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="seven-"))
    base.chmod(0o755)
    yield base
    shutil.rmtree(base, ignore_errors=True)


@pytest.mark.parametrize("disabled", ["no", "yes"])
def test_what_goes_out(disabled: str, place: Path) -> None:
    seen: dict[str, list[bytes]] = {}
    for name in peers.NAMES:
        port = free_port()
        ehlo = "250-sink.example\r\n250-PIPELINING\r\n250 DSN"
        with SinkThread(SmtpSink({"EHLO": ehlo})) as sink:
            system = peers.Peer(name, place / name, MAIN_CF, f"127.0.0.1:{port} inet n - n - - smtpd\n",
                                values={"sink": sink.port, "disabled": disabled})  # fmt: skip
            system.start()
            try:
                for number, content in enumerate(MESSAGES):
                    talk = peers.Conversation(peers.connect("127.0.0.1", port))
                    talk.reply()
                    for line in (b"EHLO c.test", b"MAIL FROM:<a@x.test> BODY=8BITMIME", b"RCPT TO:<b@y.test>", b"DATA"):
                        assert talk.ask(line)[0] in "23"
                    talk.send(content.replace(b"\r\n.", b"\r\n.."))
                    assert "queued" in talk.ask(b".")
                    talk.close()
                    system.wait_log(r"to=<b@y\.test>.*status=sent", count=number + 1)
                seen[name] = [re.sub(rb"(?s)^Received:.*?\n(?=From:)", b"", content) for content in sink.contents]
                assert not any("BODY=" in command for command in sink.commands)
            finally:
                system.stop()
    for theirs, ours in zip(seen["postfix"], seen["estafeta"], strict=True):
        assert _normal(ours) == _normal(theirs)
    if disabled == "no":
        assert all(content.isascii() for content in seen["estafeta"])


def _normal(content: bytes) -> list[bytes]:
    """The new label stands where the old one stood, in Postfix's at the end of the headers; the rest is compared as it is."""
    head, _, body = content.partition(b"\r\n\r\n")
    return [*sorted(head.split(b"\r\n")), *body.split(b"\r\n")]
