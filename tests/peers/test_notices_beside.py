"""Notices to the postmaster beside Postfix's: the same sessions, the same classes; which are told of, to whom, and what they show."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
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
virtual_mailbox_domains = box.test
virtual_mailbox_maps = inline:{ {joe@box.test = joe/}, {errors@box.test = errors/}, {bounces@box.test = bounces/} }
virtual_mailbox_base = {top}/mail
virtual_minimum_uid = 1
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
error_notice_recipient = errors@box.test
bounce_notice_recipient = bounces@box.test
smtpd_recipient_restrictions = check_sender_access inline:{ {bad@x.test = REJECT go away}, {four@x.test = 450 later} }
smtpd_relay_restrictions = reject_unauth_destination
smtpd_data_restrictions = check_sender_access inline:{ {data@x.test = REJECT} }
smtpd_end_of_data_restrictions = check_sender_access inline:{ {eod@x.test = REJECT} }
header_checks = regexp:{etc}/header_checks
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 7
smtpd_recipient_limit = 2
smtpd_junk_command_limit = 2
message_size_limit = 20000
disable_dns_lookups = yes
maximal_backoff_time = 1000s
transport_maps = inline:{ {routes} }
notify_classes = {classes}
"""

MAIL, RCPT = b"MAIL FROM:<a@x.test>", b"RCPT TO:<joe@box.test>"
# Each begins with EHLO and the session's name; QUIT is added.
SESSIONS: dict[str, list[bytes]] = {
    "relay": [MAIL, b"RCPT TO:<a@else.test>"],
    "unknown": [MAIL, b"RCPT TO:<nobody@box.test>"],
    "bad": [b"MAIL FROM:<bad@x.test>", RCPT, b"RSET"],
    "four": [b"MAIL FROM:<four@x.test>", RCPT],
    "junk": [b"JUNK"],
    "syntax": [b"MAIL"],
    "address": [b"MAIL FROM:<@@>"],
    "order": [b"DATA"],
    "announced": [b"MAIL FROM:<a@x.test> SIZE=90000"],
    "big": [MAIL, RCPT, b"DATA", (b"x" * 70 + b"\r\n") * 400 + b"."],
    "recipients": [MAIL, RCPT, RCPT, RCPT],
    "data": [b"MAIL FROM:<data@x.test>", RCPT, b"DATA"],
    "end": [b"MAIL FROM:<eod@x.test>", RCPT, b"DATA", b"x: y\r\n\r\nx\r\n."],
    "header": [MAIL, RCPT, b"DATA", b"X-Bad: y\r\n\r\nx\r\n."],
    "hops": [MAIL, RCPT, b"DATA", b"Received: y\r\n" * 60 + b"\r\nx\r\n."],
    "vrfy": [b"VRFY nobody@box.test"],
    "etrn": [b"ETRN foo.test"],
    "auth": [b"AUTH"],
    "rset": [b"RSET x"],
    "get": [b"GET / HTTP/1.0"],
    "bdat": [MAIL, RCPT, b"BDAT foo"],
    "utf8": [b"MAIL FROM:<\xff@x.test>"],
    "xclient": [b"XCLIENT NAME=foo"],
    "starttls": [b"STARTTLS"],
    "parameter": [b"MAIL FROM:<a@x.test> FOO=FOO"],
    "twice": [MAIL, MAIL],
    "many": [b"NOOP"] * 5,
    "toomany": [b"JUNK"] * 8,
    "content": [MAIL, RCPT, b"JUNK", b"DATA", b"Subject: x\r\n\r\nsecret line\r\n.", b"JUNK2"],
    "fine": [MAIL, RCPT],
}
SERVERS = {
    "mail5": {"MAIL": "550 5.7.1 bad sender"}, "rcpt5": {"RCPT": "550 5.1.1 unknown"}, "rcpt4": {"RCPT": "450 4.2.1 full"},
    "dot5": {"DOT": "554 5.6.0 spam"}, "lost": {"MAIL": "close"}, "syntax": {"RCPT": "501 5.5.4 syntax"},
    "what": {"MAIL": "500 5.5.1 huh"}, "odd": {"DATA": "250 hm"}, "full": {"RCPT": "552 5.2.2 full"},
}  # fmt: skip


@dataclass
class Notice:
    """One notice as far as it can be compared."""

    headers: dict[str, str]
    said: list[str]
    aborted: str


def _parse(text: str) -> Notice:
    head, _, body = text.partition("\n\n")
    headers = {}
    for line in re.sub(r"\n[ \t]+", " ", head).splitlines():
        name, _, value = line.partition(": ")
        headers[name] = peers.normal(value) if name not in ("Date", "Message-Id", "Received") else ""
    said = [peers.normal(line) for line in body.splitlines() if line.startswith((" Out: ", " In:", "     "))]
    aborted = next((line for line in body.splitlines() if line.startswith("Session aborted")), "")
    return Notice(headers, said, aborted)


@pytest.fixture
def place() -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="notices-"))
    base.chmod(0o755)
    yield base
    shutil.rmtree(base, ignore_errors=True)


def _system(name: str, place: Path, classes: str, port: int, routes: str = "") -> peers.Peer:
    return peers.Peer(
        name, place / name, MAIN_CF, f"127.0.0.1:{port} inet n - n - - smtpd\n", files={"header_checks": "/^X-Bad/ REJECT\n"},
        values={"classes": classes, "routes": routes or "{none.test = error:no}"},
    )  # fmt: skip


def _collected(system: peers.Peer, expected: int | None) -> dict[str, str]:
    """Box and text of every notice; waits for ``expected`` of them, or then until nothing comes any more."""

    def found() -> list[Path]:
        boxes = [system.mail / box / "new" for box in ("errors", "bounces")]
        return [path for box in boxes if box.is_dir() for path in box.iterdir()]

    if expected is not None:
        peers.wait_until(lambda: len(found()) >= expected, 10, f"{system.name}: {len(found())} of {expected} notices")
    last, since = -1, time.monotonic()
    while time.monotonic() - since < 1.0:  # what should not come has no sign of its own
        if len(found()) != last:
            last, since = len(found()), time.monotonic()
        time.sleep(0.05)
    return {str(path.relative_to(system.mail)): path.read_text() for path in found()}


def _told(name: str, place: Path, classes: str, expected: int | None) -> dict[str, tuple[str, Notice]]:
    """Session name: the mailbox, the notice."""
    port = free_port()
    system = _system(name, place, classes, port)
    system.start()
    try:
        for label, commands in SESSIONS.items():
            talk = peers.Conversation(peers.connect("127.0.0.1", port))
            talk.reply()
            for command in (b"EHLO " + label.encode(), *commands, b"QUIT"):
                if talk.ask(command) == "EOF":
                    break
            talk.close()
        system.wait_log("disconnect from", count=len(SESSIONS))
        told = {}
        for path, text in _collected(system, expected).items():
            label = re.search(r"In:  EHLO (\S+)", text)
            assert label, text
            assert label[1] not in told
            assert "secret" not in text
            told[label[1]] = (path.partition("/")[0], _parse(text))
        return told
    finally:
        system.stop()


@pytest.mark.parametrize("classes", ["policy", "protocol", "bounce", "resource, software, data", "policy, protocol, bounce"])
def test_the_same_sessions_are_told_of(classes: str, place: Path) -> None:
    theirs = _told("postfix", place, classes, None)
    ours = _told("estafeta", place, classes, len(theirs))
    assert sorted(ours) == sorted(theirs)
    for label, one in theirs.items():
        assert ours[label][0] == one[0], label
        # Where Postfix writes error_notice_recipient whoever gets it, we write who does.
        assert one[1].headers.pop("To") == "Postmaster <errors@box.test>"
        assert ours[label][1].headers.pop("To") == f"Postmaster <{one[0]}@box.test>"
        assert ours[label][1].headers == one[1].headers, label
        assert ours[label][1].said == one[1].said, label
        assert ours[label] == one, label
    if classes.startswith("policy"):
        assert len(theirs) >= 7
        assert theirs["relay"][1].headers["Subject"] == "Postfix SMTP server: errors from localhost[127.0.0.1]"


@pytest.mark.parametrize("classes", ["protocol", "policy, resource, software, data"])
def test_the_same_servers_are_told_of(classes: str, place: Path) -> None:
    sinks = {name: SinkThread(SmtpSink(replies)) for name, replies in SERVERS.items()}
    ports = {name: sink.__enter__().port for name, sink in sinks.items()}
    routes = ", ".join(f"{{{name}.out = smtp:[127.0.0.1]:{port}}}" for name, port in ports.items())
    told: dict[str, dict[str, tuple[dict[str, str], list[str]]]] = {}
    try:
        for name in peers.NAMES:
            system = _system(name, place, classes, free_port(), routes)
            system.start()
            try:
                for label in SERVERS:
                    sent = system.command("sendmail", "-f", "joe@box.test", f"x@{label}.out", input_bytes=b"Subject: t\n\nsecret\n")
                    assert sent.returncode == 0
                system.wait_log(r"to=<x@\w+\.out>.*status=", count=len(SERVERS))
                expected = None if name == "postfix" else len(told["postfix"])
                told[name] = {}
                for text in _collected(system, expected).values():
                    assert "secret" not in text
                    notice = _parse(text)
                    port = int(notice.headers["Subject"].rpartition(":")[2])
                    # Ours says QUIT where Postfix says RSET first, and does not wait for what is said to that.
                    said = [line for line in notice.said if "QUIT" not in line and "RSET" not in line and "SIZE=" not in line]
                    while said and said[-1].startswith(" In:  2") and not said[-1].endswith("hm"):
                        said.pop()
                    told[name][next(label for label in ports if ports[label] == port)] = (notice.headers, said)
            finally:
                system.stop()
    finally:
        for sink in sinks.values():
            sink.__exit__()
    assert sorted(told["estafeta"]) == sorted(told["postfix"])
    for label, one in told["postfix"].items():
        assert told["estafeta"][label][0] == one[0], label
        assert told["estafeta"][label][1] == one[1], label
    assert bool(told["postfix"]) == (classes == "protocol")
