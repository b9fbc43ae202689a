"""Size limits beside Postfix: what is said at MAIL, behind DATA and BDAT, by sendmail; what becomes of long headers and full mailboxes."""

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
mydestination = local.test
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
alias_maps = inline:{ {big = {top}/mail/mbox} }
allow_mail_to_files = alias
local_recipient_maps =
notify_classes =
virtual_mailbox_domains = box.test
virtual_mailbox_maps = inline:{ {joe@box.test = joe/}, {mbox@box.test = vmbox} }
virtual_mailbox_base = {top}/mail
virtual_minimum_uid = 1
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_limit = 2
smtpd_error_sleep_time = 0
mail_spool_directory = {top}/mail/spool
{limits}
"""
LIMITED = """\
message_size_limit = 20000
mailbox_size_limit = 30000
virtual_mailbox_limit = 30000
header_size_limit = 3000
line_length_limit = 600
"""
UNLIMITED = "message_size_limit = 0\nmailbox_size_limit = 0\nvirtual_mailbox_limit = 0\n"
MAIL, RCPT = b"MAIL FROM:<a@x.test>", b"RCPT TO:<joe@box.test>"

LINES = (b"x" * 70 + b"\r\n") * 200  # 14400 octets; the last two come with the next command's line end


def _content(size: int) -> bytes:
    return b"Subject: x\r\n\r\n" + (b"x" * 70 + b"\r\n") * (size // 72) + b"."


SESSIONS: list[list[bytes]] = [
    [MAIL + b" SIZE=20000", RCPT],
    [MAIL + b" SIZE=20001", RCPT],
    [MAIL + b" SIZE=99999999999999999999999", MAIL + b" SIZE=-1", MAIL + b" SIZE=x", MAIL + b" SIZE=", MAIL + b" SIZE"],
    [MAIL, RCPT, b"DATA", _content(15000)],
    [MAIL, RCPT, b"DATA", _content(40000), MAIL, RCPT],
    [MAIL, RCPT, b"DATA", _content(400000), MAIL, RCPT],
    [MAIL, RCPT, b"BDAT 14400\r\n" + LINES[:-2], b"BDAT 14400 LAST\r\n" + LINES[:-2], MAIL],
    [MAIL, RCPT, RCPT, RCPT, RCPT, b"DATA", _content(100)],
    [MAIL + b" " + b"x" * 500, b"NOOP " + b"x" * 3000],
]


@pytest.fixture
def place() -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="sizes-"))
    base.chmod(0o755)
    yield base
    shutil.rmtree(base, ignore_errors=True)


def _system(name: str, place: Path, limits: str) -> tuple[peers.Peer, int]:
    port = free_port()
    service = f"127.0.0.1:{port} inet n - n - - smtpd\n"
    return peers.Peer(name, place / name, MAIN_CF, service, values={"limits": limits}), port


def _message(port: int, recipient: str, content: bytes) -> list[str]:
    return peers.Conversation(peers.connect("127.0.0.1", port)).message("a@x.test", [recipient], content)


@pytest.mark.parametrize("limits", [LIMITED, UNLIMITED], ids=["limited", "unlimited"])
def test_replies(limits: str, place: Path) -> None:
    replies: dict[str, list[list[str]]] = {}
    for name in peers.NAMES:
        system, port = _system(name, place, limits)
        system.start()
        replies[name] = []
        try:
            for commands in SESSIONS:
                talk = peers.Conversation(peers.connect("127.0.0.1", port))
                talk.reply()
                said = [talk.ask(command) for command in (b"EHLO c.test", *commands, b"QUIT")]
                talk.close()
                replies[name].append([peers.normal(reply) for reply in said])
            for size in (15000, 40000):
                done = system.command("sendmail", "-f", "a@x.test", "joe@box.test", input_bytes=b"a: b\n\n" + b"line\n" * (size // 5))
                text = done.stderr.decode().replace("postfix/", "").strip()
                replies[name].append([f"sendmail {size}: {bool(done.returncode)} {text.partition('fatal: ')[2]}"])
        finally:
            system.stop()
    for theirs, ours in zip(replies["postfix"], replies["estafeta"], strict=True):
        assert ours == theirs


def test_long_headers_lines_and_full_mailboxes(place: Path) -> None:
    seen: dict[str, list[object]] = {}
    for name in peers.NAMES:
        system, port = _system(name, place, LIMITED)
        system.start()
        try:
            header = b"X-Long: " + b"y" * 2000 + b"\r\n " + b"q" * 2000 + b"\r\n r\r\n"
            header += b"X-Line: " + b"z" * 5000 + b"\r\n"
            assert "queued" in _message(port, "joe@box.test", header + b"Subject: x\r\n\r\n" + b"w" * 5000 + b"\r\nend\r\n")[-2]
            system.wait_log(r"to=<joe@box\.test>.*status=sent")
            (path,) = (system.mail / "joe" / "new").iterdir()
            head, _, body = path.read_bytes().partition(b"\n\n")
            lines = [line for line in head.split(b"\n") if line.startswith((b"X-L", b" "))]
            seen[name] = [[line[:12] for line in lines], [len(line) for line in lines], [len(line) for line in body.split(b"\n")]]
            (system.mail / "spool").mkdir(mode=0o1777)
            (system.mail / "spool").chmod(0o1777)
            for mailbox in ("big@local.test", "nobody@local.test", "mbox@box.test"):
                for _ in range(3):
                    assert "queued" in _message(port, mailbox, _content(14000)[:-1])[-2]
                system.wait_log(rf"to=<{mailbox}>.*status=", count=3)
                found = re.findall(rf"to=<{mailbox}>.*(dsn=.*status=.*)", system.log())
                seen[name] += sorted(peers.normal(line).replace(str(system.top), "TOP") for line in found)
        finally:
            system.stop()
    for theirs, ours in zip(seen["postfix"], seen["estafeta"], strict=True):
        assert ours == theirs


def test_the_tutorials_fatal_error(place: Path) -> None:
    """Ours says so at the start, Postfix when local(8) starts: the words are the same."""
    system, _ = _system("estafeta", place, "message_size_limit = 100000000\nmailbox_size_limit = 51200000\n")
    result = system.command("postfix", "start")
    assert result.returncode == 1
    assert b"main.cf configuration error: mailbox_size_limit is smaller than message_size_limit" in result.stderr
    theirs, port = _system("postfix", place, "message_size_limit = 100000000\nmailbox_size_limit = 51200000\n")
    theirs.start()
    try:
        _message(port, "user@local.test", b"a: b\r\n\r\n")
        theirs.wait_log("fatal: configuration error: mailbox_size_limit is smaller than message_size_limit")
    finally:
        theirs.stop()
