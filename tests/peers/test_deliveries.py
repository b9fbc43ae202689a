"""The same messages into Debian's Postfix and into Estafeta: what lands in maildirs, mailbox files and at the next host.

Each case goes to ``NAME@box.test`` (a maildir), ``NAME@file.test`` (a mailbox file) and ``NAME@sink.test`` (by SMTP to a
sink), unless it says otherwise.
"""

from __future__ import annotations

import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import netns, peers
from support.ports import free_port

pytestmark = [
    pytest.mark.skipif(peers.missing() is not None, reason=peers.missing() or ""),
    pytest.mark.xdist_group("peers"),
]

MAIN_CF = """\
myhostname = mail.here.test
mydomain = here.test
myorigin = here.test
mydestination =
mynetworks = 127.0.0.0/16
inet_interfaces = 127.0.0.1
smtpd_peername_lookup = no
relay_domains = sink.test
transport_maps = inline:{ { sink.test = smtp:[127.0.0.1]:{sink} } }
virtual_mailbox_domains = box.test, file.test
virtual_mailbox_maps = texthash:{etc}/mailboxes
virtual_mailbox_base = {mail}
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 1
virtual_alias_domains = alias.test
virtual_alias_maps = regexp:{etc}/aliases
canonical_maps = inline:{ { old@here.test = new.name@here.test }, { @before.test = @after.test } }
sender_canonical_maps = inline:{ { secret@here.test = public@here.test } }
recipient_canonical_maps = inline:{ { shown@here.test = hidden@here.test } }
masquerade_domains = here.test
masquerade_exceptions = root
recipient_delimiter = +
alias_maps =
alias_database =
disable_dns_lookups = yes
smtp_line_length_limit = 990
"""

@dataclass(frozen=True)
class Case:
    """One message. ``content`` is sent as it is (dots doubled by the client); ``way``: smtp, bdat, sendmail, sendmail-t."""

    name: str
    content: bytes
    sender: str = "a@b.test"
    way: str = "smtp"
    recipients: tuple[str, ...] = ("{0}@box.test", "{0}@file.test", "{0}@sink.test")
    parameters: str = ""
    helo: str = "EHLO client.test"
    source: str = "127.0.0.1"
    options: tuple[str, ...] = ()

    def addresses(self) -> list[str]:
        """The recipients."""
        return [recipient.format(self.name) for recipient in self.recipients]


FULL = (
    b"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nFrom: A <a@b.test>\r\nTo: x@y.test\r\nMessage-Id: <1@b.test>\r\n"
    b"Subject: s\r\n\r\n"
)

CASES = [
    Case("full", FULL + b"body\r\n"),
    Case("empty", b""),
    Case("onlybody", b"no header here\r\n"),
    Case("blankfirst", b"\r\nbody\r\n"),
    Case("noblank", b"Subject: s\r\n"),
    Case("badheader", b"Subject: s\r\nthis is not a header\r\nTo: x@y.test\r\n\r\nbody\r\n"),
    Case("spaceheader", b"Subject : s\r\nTo: x@y.test\r\n\r\nbody\r\n"),
    Case("nocolonspace", b"Subject:s\r\nto:x@y.test\r\n\r\nbody\r\n"),
    Case("fromline", b"From me Mon Jan  1 00:00:00 2024\r\nSubject: s\r\n\r\nbody\r\n"),
    Case("onlysubject", b"Subject: s\r\n\r\nbody\r\n"),
    Case("remote", b"Subject: s\r\n\r\nbody\r\n", source="127.0.0.5"),
    Case("remotefull", b"From: joe\r\nTo: jane\r\nSubject: s\r\n\r\nbody\r\n", source="127.0.0.5"),
    Case("localnames", b"From: joe\r\nTo: jane, bob@host\r\nCc: x@y.test\r\nSubject: s\r\n\r\nbody\r\n"),
    Case("bcc", FULL.replace(b"Subject", b"Bcc: hidden@z.test\r\nSubject") + b"body\r\n"),
    Case("bccfolded", FULL.replace(b"Subject", b"BCC: hidden@z.test,\r\n\tother@z.test\r\nSubject") + b"body\r\n"),
    Case("onlybcc", b"From: a@b.test\r\nBcc: x@y.test\r\nSubject: s\r\n\r\nbody\r\n"),
    Case("dropped", b"Return-Path: <x@y.test>\r\nContent-Length: 7\r\n" + FULL + b"body\r\n"),
    Case("resent", b"Resent-From: r@b.test\r\nResent-To: q@b.test\r\n" + FULL + b"body\r\n"),
    Case("dots", FULL + b".\r\n..\r\n.x\r\nx.\r\n...\r\n"),
    Case("nonewline", FULL + b"no newline at the end"),
    Case("eightbit", FULL + b"caf\xe9 \xff\x80\r\n", parameters=" BODY=8BITMIME"),
    Case("eightbitheader", FULL.replace(b": s", b": caf\xc3\xa9 \xe9") + b"body\r\n"),
    Case("nul", FULL + b"a\0b\r\n"),
    Case("nulheader", FULL.replace(b": s", b": s\0t") + b"body\r\n"),
    Case("barecr", FULL + b"a\rb\r\n\r\rc\r\r\n"),
    Case("crdot", FULL + b"x\r\n\r.\r\n.\r\r\n\r\r\n..\r\r\n"),
    Case("crsendmail", b"Subject: a\rb\r\r\n\r\r\nx\ry\r\r\n", way="sendmail", options=("-F", "x")),
    Case("crlarge", FULL + b"0123456789abc\ref\r\r\n" * 30000),
    Case("barelf", FULL + b"a\nb\n\nc\r\n"),
    Case("bareheader", b"Subject: s\nTo: x@y.test\n\nbody\r\n"),
    Case("longline", FULL + b"x" * 3000 + b"\r\nshort\r\n"),
    Case("longdotline", FULL + b"." * 2500 + b"\r\n"),
    Case("longheader", FULL.replace(b": s", b": " + b"word " * 600) + b"body\r\n"),
    Case("longto", b"To: " + b",\r\n ".join(b"user%d@example.test" % n for n in range(60)) + b"\r\n" + FULL + b"x\r\n"),
    Case("fromlines", FULL + b"From the start\r\n>From x\r\n\r\nFrom y\r\nfrom z\r\n"),
    Case("large", FULL + b"0123456789abcdef\r\n" * 30000),
    Case("helo", FULL + b"body\r\n", helo="HELO old.test"),
    Case("null", FULL + b"body\r\n", sender=""),
    Case("oddsender", FULL + b"body\r\n", sender='"odd sender"@b.test'),
    Case("single", FULL + b"body\r\n", recipients=("{0}@box.test",)),
    Case("extension", FULL + b"body\r\n", recipients=("{0}+ext@box.test",)),
    Case("alias", FULL + b"body\r\n", recipients=("{0}@alias.test",)),
    Case("twice", FULL + b"body\r\n", recipients=("{0}@box.test", "{0}@box.test", "{0}@alias.test")),
    Case("canonical", b"From: old@here.test\r\nTo: X <u@before.test>, old@here.test\r\nSubject: s\r\n\r\nold@here.test\r\n",
         sender="old@here.test"),
    Case("secret", b"From: secret@here.test\r\nTo: secret@here.test, shown@here.test\r\nSubject: s\r\n\r\nbody\r\n",
         sender="secret@here.test"),
    Case("masquerade", b"From: Joe <joe@sub.here.test>\r\nTo: ann@x.y.here.test, root@sub.here.test\r\nSubject: s\r\n\r\nx\r\n",
         sender="joe@sub.here.test"),
    Case("comments", b'From: "Joe \\"X\\" Doe" <joe@here> (a (nested) comment)\r\nTo: (x) jane (y), G: a@b, c;\r\n'
         b"Cc: undisclosed-recipients:;\r\nSubject: s\r\n\r\nbody\r\n"),
    Case("routes", b"From: <@a.test,@b.test:joe@c.test>\r\nTo: joe%c.test, c.test!joe, <joe@c.test\r\nReply-To: <>\r\n"
         b"Subject: s\r\n\r\nbody\r\n"),
    Case("deliveredto", b"Delivered-To: other@box.test\r\nX-Original-To: x@box.test\r\n" + FULL + b"body\r\n"),
    Case("mime", FULL.replace(b"\r\n\r\n", b"\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n")
         + b"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xc3\xa9\r\n--b--\r\n"),
    Case("bdat", FULL + b"body\r\n", way="bdat"),
    Case("bdatopen", FULL + b".body\r\nno end", way="bdat"),
    Case("bdatlf", b"Subject: s\n\n.\nbody\n", way="bdat"),
    Case("sendmail", b"Subject: s\n\nbody\n.\nlost\n", way="sendmail", options=("-F", "Joe Doe")),
    Case("sendmaili", b"Subject: s\n\nbody\n.\nkept\n", way="sendmail", options=("-i", "-F", "J. Doe")),
    Case("sendmailcrlf", b"Subject: s\r\n\r\nbody\r\n", way="sendmail", options=("-F", "")),
    Case("sendmailfrom", b"From a@b Mon Jan  1 00:00:00 2024\nSubject: s\n\nbody\n", way="sendmail", options=("-F", "x")),
    Case("sendmailopen", b"Subject: s\n\nbody", way="sendmail", options=("-F", "x")),
    Case("sendmailt", b"To: sendmailt@box.test\nCc: Y <sendmailt@file.test>\nBcc: sendmailt@sink.test\nSubject: s\n\nx\n",
         way="sendmail-t", options=("-F", "x")),
    Case("sendmailname", b"Subject: s\n\nx\n", way="sendmail", options=("-F", "a  b\tc")),
]  # fmt: skip

# virtual(8) takes no $1 from a regular expression: every user has a line.
FILES = {
    "mailboxes": "".join(f"{case.name}@box.test {case.name}/\n{case.name}@file.test file-{case.name}\n" for case in CASES),
    "aliases": "/^(.*)@alias\\.test$/ ${1}@box.test, ${1}@sink.test\n",
}

# Case -> why the deliveries differ; docs/differs.md has the same list for people.
DIFFERS: dict[str, str] = {
    "nulheader": "a NUL does not cut the rest of a header off",
    "comments": "a header address is changed where it stands; Postfix writes the field anew and moves its comments",
    "routes": "a header address that needs no change stays as written, source route and syntax error included",
}


def submit(system: peers.Peer, port: int, case: Case) -> list[str]:
    """Hand a message in; the replies."""
    if case.way.startswith("sendmail"):
        how = ["-t"] if case.way == "sendmail-t" else []
        to = [] if case.way == "sendmail-t" else case.addresses()
        done = system.command("sendmail", "-f", case.sender, *case.options, *how, *to, input_bytes=case.content)
        return [str(done.returncode), done.stderr.decode()]
    talk = peers.Conversation(peers.connect("127.0.0.1", port, case.source))
    replies = [talk.reply(), talk.ask(case.helo.encode()), talk.ask(f"MAIL FROM:<{case.sender}>{case.parameters}".encode())]
    replies += [talk.ask(f"RCPT TO:<{recipient}>".encode()) for recipient in case.addresses()]
    if case.way == "bdat":
        half = len(case.content) // 2
        talk.send(b"BDAT %d\r\n%s" % (half, case.content[:half]))
        replies.append(talk.reply())
        talk.send(b"BDAT %d LAST\r\n%s" % (len(case.content) - half, case.content[half:]))
        replies.append(talk.reply())
    else:
        replies.append(talk.ask(b"DATA"))
        stuffed = (b"\r\n" + case.content).replace(b"\r\n.", b"\r\n..")[2:]
        talk.send(stuffed if stuffed.endswith(b"\r\n") or not stuffed else stuffed + b"\r\n")
        replies.append(talk.ask(b"."))
    replies.append(talk.ask(b"QUIT"))
    talk.close()
    return [peers.normal(reply) for reply in replies]


def _text(content: bytes) -> str:
    return re.sub(r"(?m)^(From .+? ) ?\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \d{4}$", r"\1DATE", peers.normal(content.decode("latin-1")))


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, dict[str, dict[str, list[str]]]]]:
    """System -> case -> what was delivered where (``replies`` too)."""
    base = Path(tempfile.mkdtemp(prefix="deliveries-"))
    base.chmod(0o755)
    found: dict[str, dict[str, dict[str, list[str]]]] = {}
    try:
        for name in peers.NAMES:
            found[name] = _run(name, base / name)
        yield found
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _run(name: str, top: Path) -> dict[str, dict[str, list[str]]]:
    sink = netns.Sink(socket.create_server(("127.0.0.1", 0)), "sink.test")
    port = free_port()
    system = peers.Peer(
        name, top, MAIN_CF, f"127.0.0.1:{port} inet n - n - - smtpd\n", files=FILES,
        values={"sink": sink.port, "mail": top / "mail"},
    )  # fmt: skip
    replies = {}
    try:
        system.start()
        for case in CASES:
            replies[case.name] = submit(system, port, case)
        system.flush_and_wait(40)
    finally:
        system.stop()
        sink.close()
    found = {}
    for case in CASES:
        places = {"replies": replies[case.name]}
        places["maildir"] = sorted(_text(path.read_bytes()) for path in (system.mail / case.name / "new").glob("*"))
        file = system.mail / f"file-{case.name}"
        places["file"] = [_text(file.read_bytes())] if file.exists() else []
        places["sink"] = sorted(
            "\n".join([d.helo, *(re.sub(r"SIZE=\d+", "SIZE=N", line) for line in d.envelope), _text(d.content)])
            for d in sink.deliveries
            if any(f"<{case.name}@" in line for line in d.envelope)
        )
        found[case.name] = places
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_deliveries(results: dict[str, dict[str, dict[str, list[str]]]], case: Case) -> None:
    """The same replies, and the same bytes everywhere."""
    ours, reference = results["estafeta"][case.name], results["postfix"][case.name]
    assert any(reference[place] for place in ("maildir", "file", "sink")), reference["replies"]
    if case.name in DIFFERS:
        assert ours != reference, "no longer different: take it out of DIFFERS and docs/differs.md"
        pytest.xfail(DIFFERS[case.name])
    for place in reference:
        assert ours[place] == reference[place], place
