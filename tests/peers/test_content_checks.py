"""header_checks, mime_header_checks, nested_header_checks and body_checks beside Debian's Postfix: the same messages, the same
replies, log lines, deliveries, recipients and queues. Source: header_checks(5), BUILTIN_FILTER_README.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import peers
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
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
smtpd_peername_lookup = no
virtual_mailbox_domains = box.test
virtual_mailbox_base = {mail}
virtual_mailbox_maps = texthash:{etc}/mailboxes
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 1
virtual_alias_domains = alias.test
virtual_alias_maps = inline:{ { many@alias.test = one@box.test, two@box.test } }
relay_domains = gone.test
transport_maps = inline:{ { gone.test = error:5.1.1 gone } }
alias_maps =
alias_database =
disable_dns_lookups = yes
body_checks_size_limit = 4000
header_size_limit = 3000
header_checks = regexp:{etc}/header_checks
mime_header_checks = regexp:{etc}/mime_checks
nested_header_checks = regexp:{etc}/nested_checks
body_checks = regexp:{etc}/body_checks
"""

MASTER_CF = "127.0.0.1:{smtp} inet n - n - - smtpd\n"

ACTIONS = """\
/^X-Do: reject$/ REJECT
/^X-Do: rejecttext$/ REJECT go away
/^X-Do: rejectdsn$/ REJECT 5.7.9 with a code of its own
/^X-Do: rejectbad$/ REJECT 4.7.9 a code of the wrong class
/^X-Do: discard$/ DISCARD
/^X-Do: discardtext$/ DISCARD because of this
/^X-Do: hold$/ HOLD
/^X-Do: holdtext$/ hold for a look
/^X-Do: filter$/ FILTER discard:filtered
/^X-Do: filterbad$/ FILTER nothing
/^X-Do: redirect$/ REDIRECT other@box.test
/^X-Do: redirectbad$/ REDIRECT nobody
/^X-Do: bcc$/ BCC copy@box.test
/^X-Do: bccbad$/ BCC copy
/^X-Do: warn$/ WARN
/^X-Do: warntext$/ WARN this is the warning
/^X-Do: info$/ INFO
/^X-Do: infotext$/ INFO some text
/^X-Do: pass$/ PASS
/^X-Do: ignore$/ IGNORE
/^X-Do: ignoretext$/ IGNORE this text is not for use
/^X-Do: strip$/ STRIP
/^X-Do: striptext$/ STRIP with text
/^X-Do: replace$/ REPLACE X-Done: replaced
/^X-Do: replaceto$/ REPLACE To: New Name <joe@sub.test>
/^X-Do: replacebad$/ REPLACE no header at all
/^X-Do: replaceempty$/ REPLACE
/^X-Do: prepend$/ PREPEND X-Before: something
/^X-Do: prependbad$/ PREPEND no header
/^X-Do: prependempty$/ PREPEND
/^X-Do: dunno$/ DUNNO
/^X-Do: ok$/ OK
/^X-Do: unknown$/ FROBNICATE this
/^X-Do: ([a-z]+)-sub$/ WARN got $1
/^X-Fold: a.b c/ WARN folded dot
/^X-Fold: d[[:space:]]+e/ WARN folded space
/^X-Long: .*end/ WARN the end is there
/^Received: .*client.test/ INFO received seen
/^Subject: .*caf\xe9/ WARN eight bits
/^MIME-Version/ WARN in header_checks
/^Content-/ WARN in header_checks
/^Message-Id:/ INFO message id
/inner/ WARN in header_checks
"""

MIME = """\
/inner/ WARN in mime_header_checks
/^MIME-Version/ WARN in mime_header_checks
/^Content-/ WARN in mime_header_checks
/^X-Mime: reject/ REJECT in a part
/^X-Mime: ignore/ IGNORE
/^X-Mime: replace/ REPLACE X-Was: replaced
/^X-Mime: prepend/ PREPEND X-Was: prepended
"""

NESTED = """\
/inner/ WARN in nested_header_checks
/^X-Nested: reject/ REJECT in a nested message
"""

BODY = """\
/^do reject$/ REJECT
/^do rejecttext (.*)$/ REJECT text $1
/^do discard$/ DISCARD
/^do hold$/ HOLD in the body
/^do filter$/ FILTER discard:filtered
/^do redirect$/ REDIRECT other@box.test
/^do bcc$/ BCC copy@box.test
/^do warn$/ WARN
/^do ignore$/ IGNORE
/^do strip$/ STRIP why
/^do replace$/ REPLACE replaced line
/^do replaceempty$/ REPLACE
/^do prepend$/ PREPEND prepended line
/^do pass$/ PASS
/^--inner/ WARN boundary
/inner/ WARN in body_checks
/^[.]dot/ WARN a dot
/^late line/ WARN late line
/^xxxx/ WARN a chunk
/^$/ WARN empty
/^yyyy/ WARN second chunk
"""


@dataclass(frozen=True)
class Case:
    """One message to ``NAME@box.test`` (or elsewhere)."""

    name: str
    content: bytes
    recipients: tuple[str, ...] = ("{0}@box.test",)
    sender: str | None = None
    way: str = "smtp"

    def sender_address(self) -> str:
        return (self.sender if self.sender is not None else "{0}@from.test").format(self.name)

    def addresses(self) -> list[str]:
        return [recipient.format(self.name) for recipient in self.recipients]


BASE = (
    b"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nFrom: A <a@b.test>\r\nTo: x@y.test\r\nMessage-Id: <1@b.test>\r\n"
    b"Subject: s\r\n"
)


def head(*lines: bytes, body: bytes = b"the body\r\n") -> bytes:
    """A message with more header lines."""
    return BASE + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def mime(text: bytes, kind: bytes = b"multipart/mixed; boundary=inner-b") -> bytes:
    """A MIME message."""
    return BASE + b"MIME-Version: 1.0\r\nContent-Type: " + kind + b"\r\n\r\n" + text.replace(b"\n", b"\r\n")


_WORDS = re.findall(r"\^X-Do: ([a-z]+)\$", ACTIONS)
CASES = [
    *(Case(word, head(b"X-Do: " + word.encode(), b"X-Do: warn", body=b"do warn\r\n")) for word in _WORDS),
    Case("substitute", head(b"X-Do: some-sub")),
    Case("case", head(b"x-do: WARNTEXT")),
    Case("folded", head(b"X-Fold: a\r\n b c", b"X-Fold: d\r\n\t e")),
    Case("foldedreject", head(b"X-Do:\r\n reject")),
    Case("longheader", head(b"X-Long: " + b"word " * 500 + b"end", b"X-Long: " + b"word " * 900 + b"end")),
    Case("longfold", head(b"X-Long: " + b"word\r\n " * 900 + b"end")),
    Case("two", head(b"X-Do: warn", b"X-Do: hold", b"X-Do: holdtext", b"X-Do: redirect", b"X-Do: filter")),
    Case("bcctwice", head(b"X-Do: bcc", b"X-Do: bcc"), recipients=("{0}@box.test", "copy@box.test")),
    Case("redirectmany", head(b"X-Do: redirect"), recipients=("{0}@box.test", "many@alias.test", "x@gone.test")),
    Case("rejectmany", head(b"X-Do: rejecttext"), recipients=("{0}@box.test", "many@alias.test")),
    Case("discardmany", head(b"X-Do: discardtext"), recipients=("{0}@box.test", "many@alias.test")),
    Case("nullsender", head(b"X-Do: rejecttext"), sender=""),
    Case("eightbit", BASE.replace(b": s", b": caf\xe9") + b"\r\nx\r\n"),
    Case("body", head(body=b"one\r\ndo reject\r\n")),
    Case("bodytext", head(body=b"one\r\ndo rejecttext now\r\n")),
    *(Case("b" + word, head(body=b"one\r\ndo " + word.encode() + b"\r\n.dot\r\nthree\r\ndo warn\r\n"))
      for word in ("discard", "hold", "filter", "redirect", "bcc", "warn", "ignore", "strip", "replace", "replaceempty",
                   "prepend", "pass")),
    Case("bodylimit", head(body=b"0123456789\r\n" * 400 + b"late line\r\n")),
    Case("bodyinside", head(body=b"0123456789\r\n" * 300 + b"late line\r\n")),
    Case("bodybetween", head(body=b"0123456789\r\n" * 390 + b"late line\r\n")),
    Case("emptylines", mime(b"pre\n\ntext\n--inner-b\n\nX\n\n--inner-b\nContent-Type: message/rfc822\n\nX-S: s\n\n\nx\n--inner-b--\n")),
    Case("longline", head(body=b"x" * 3000 + b"\r\n" + b"y" * 2500 + b"late\r\n")),
    Case("longline2", head(body=b"a" * 2048 + b"yyyy and more\r\n")),
    Case("nobody", BASE + b"X-Do: warn\r\n"),
    Case("notaheader", BASE + b"X-Do: warn\r\nnot a header, inner\r\nX-Do: hold\r\n\r\nbody\r\n"),
    Case("onlybody", b"inner is the first line\r\n"),
    Case("blankfirst", b"\r\nX-Do: hold\r\ninner\r\n"),
    Case("fromline", b"From me Mon Jan  1 00:00:00 2024\r\n" + head(b"X-Do: warn")),
    Case("otherheaders", head(*(name + b": inner" for name in (
        b"Content-Type", b"Content-Transfer-Encoding", b"Content-Disposition", b"Content-Description", b"Content-Id",
        b"Content-Length", b"Content-Foo", b"Content-Language", b"Content-MD5", b"Content-Location", b"MIME-Version",
        b"X-Content")))),
    Case("multipart", mime(
        b"preamble inner\n--inner-b\nContent-Type: text/plain\nX-Inner: inner\n\ninner text\n--inner-b\nX-Plain: inner\n\n"
        b"second inner\n--inner-b--\nepilogue inner\n--inner-b\nafter inner\n")),
    Case("mimereject", mime(b"--inner-b\nX-Mime: reject\n\ntext\n--inner-b--\n")),
    Case("mimechange", mime(b"--inner-b\nX-Mime: ignore\nX-Mime: replace\nX-Mime: prepend\n\ntext\n--inner-b--\n")),
    Case("nested", mime(
        b"--inner-b\nContent-Type: message/rfc822\n\nSubject: inner subject\nContent-Type: text/plain\nX-Mime: reject\n\n"
        b"inner body\n--inner-b--\n")),
    Case("nestedreject", mime(b"--inner-b\nContent-Type: message/rfc822\n\nX-Nested: reject\n\nx\n--inner-b--\n")),
    Case("nestedtop", mime(b"Subject: inner subject\n\ninner body\n", b"message/rfc822")),
    Case("nestedmulti", mime(
        b"--inner-b\nContent-Type: message/rfc822\n\nSubject: inner\nContent-Type: multipart/mixed; boundary=\"deep b\"\n\n"
        b"inner one\n--deep b\nX-Deep: inner\n\ninner two\n--inner-b\nX-Outer: inner\n\ninner three\n--inner-b--\n")),
    Case("digest", mime(b"--inner-b\n\nSubject: inner subject\n\ninner body\n--inner-b--\n",
                        b"multipart/digest; boundary=inner-b")),
    Case("quotedboundary", mime(b"--in\\ner\nX: inner\n--in ner:x\nX: inner\n\ninner\n--in ner:x--\n",
                                b"multipart/mixed;\r\n\tcharset=x; boundary=\"in ner:x\" (comment)")),
    Case("noboundary", mime(b"--inner-b\nX: inner\n\ninner\n", b"multipart/mixed")),
    Case("longerboundary", mime(b"--inner-bcd\nX: inner\n\ninner\n--inner-b--more\nX: inner\n\nx inner\n")),
    Case("notmime", BASE + b"Content-Type: multipart/mixed; boundary=inner-b\r\n\r\n--inner-b\r\nX: inner\r\n\r\ninner\r\n"),
    Case("encodedrfc822", mime(
        b"--inner-b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogaW5uZXI=\nX: inner\n--inner-b--\n")),
    Case("partial", mime(b"Subject: inner\n\ninner\n", b"message/partial; id=1; number=1")),
    Case("externalbody", mime(b"Content-Type: image/inner\n\ninner\n", b"message/external-body; access-type=x")),
    Case("deliverystatus", mime(b"Reporting: inner\n\ninner\n", b"message/delivery-status")),
    Case("partlimit", mime(b"--inner-b\n\n" + b"0123456789\n" * 395 + b"--inner-b\n\nlate line\n" + b"0123456789\n" * 400
                           + b"late line\n--inner-b--\nlate line\n")),
    Case("manyparts", mime(b"".join(b"--inner-b\nX-N: inner %d\n\nbody\n" % n for n in range(20)) + b"--inner-b--\n")),
    Case("local", head(b"X-Do: warntext"), way="sendmail"),
    Case("localreject", head(b"X-Do: rejecttext"), way="sendmail", sender="{0}@box.test"),
    Case("localbody", head(body=b"do rejecttext now\r\n"), way="sendmail", sender="{0}@box.test"),
    Case("localdiscard", head(b"X-Do: discardtext"), way="sendmail"),
    Case("large", head(b"X-Do: warntext", body=b"0123456789abcdef\r\n" * 30000 + b"do reject\r\n")),
    Case("largemulti", mime(b"--inner-b\n\n" + b"0123456789abcdef\n" * 30000 + b"--inner-b\nX-Late: inner\nX-Mime: ignore\n\n"
                            b"do replace\ndo prepend\n--inner-b--\n")),
    Case("largereject", mime(b"--inner-b\n\n" + b"0123456789abcdef\n" * 30000 + b"--inner-b\n\ndo reject\n--inner-b--\n")),
]  # fmt: skip


@dataclass
class Outcome:
    """What a system made of one message."""

    replies: list[str]
    log: list[str]
    mail: dict[str, list[str]]


def submit(peer: peers.Peer, port: int, case: Case) -> list[str]:
    """Hand a message in; the replies."""
    if case.way == "sendmail":
        lines = case.content.replace(b"\r\n", b"\n")
        sent = peer.command("sendmail", "-f", case.sender_address(), "-i", "--", *case.addresses(), input_bytes=lines)
        return [f"{sent.returncode} {sent.stdout!r} {sent.stderr!r}"]
    talk = peers.Conversation(peers.connect("127.0.0.1", port))
    return [peers.normal(reply) for reply in talk.message(case.sender_address(), case.addresses(), case.content)[2:]]


def interesting(log: str, case: Case) -> list[str]:
    """What the log says of a case's message, without times, process and queue ids."""
    mark = f"from=<{case.sender_address()}>" if case.sender_address() else f"to=<{case.name}@"
    ids = {line.split(": ")[1] for line in log.splitlines() if mark in line and "NOQUEUE" not in line}
    found = []
    for line in log.splitlines():
        parts = line.split(": ", 2)
        if len(parts) == 3 and parts[1] in ids:
            program = re.sub(r".*/([a-z-]+)\[\d+\]$", r"\1", parts[0])
            program = {"pickup": "cleanup"}.get(program, program)  # ours bounces itself what cleanup refuses
            if program in ("cleanup", "qmgr", "virtual", "discard", "error", "bounce"):
                text = re.sub(r"(delays?|conn_use)=[^,]+, |size=\d+, ", "", parts[2])
                found.append(peers.normal(f"{program}: {text}"))
    return [line for line in found if "removed" not in line and "message-id=" not in line and "notification:" not in line]


def mail_of(top: Path, case: Case) -> dict[str, list[str]]:
    """Maildir -> the messages of this case."""
    found: dict[str, list[str]] = {}
    for path in sorted(top.glob("*/new/*")):
        name = path.parts[-3]
        text = path.read_text("latin-1")
        if name == case.name or (case.sender_address() and f"Return-Path: <{case.sender_address()}>" in text):
            if "Return-Path: <>" in text:  # a notice: its wording is our own
                text = "\n".join(re.findall(r"^(?:Final-Recipient|Original-Recipient|Action|Status|Diagnostic-Code):.*", text, re.M))
            found.setdefault(name, []).append(peers.normal(text))
    return {name: sorted(texts) for name, texts in found.items()}


STRICT_CF = """\
strict_mime_encoding_domain = yes
strict_7bit_headers = yes
strict_8bitmime_body = yes
mime_nesting_limit = 2
"""


def deep(levels: int) -> bytes:
    """Multiparts inside one another."""
    names = [b"b", *(b"b%d" % number for number in range(1, levels + 1))]
    parts = (b"--%s\nContent-Type: multipart/mixed; boundary=%s\n\n" % pair for pair in pairwise(names))
    return mime(b"".join(parts), b"multipart/mixed; boundary=b")


STRICT_CASES = [
    Case("h8", BASE.replace(b": s", b": caf\xe9") + b"\r\nx\r\n"),
    Case("b8", head(body=b"one\r\ncaf\xe9\r\n")),
    Case("b8ok", head(b"MIME-Version: 1.0", b"Content-Type: text/plain", b"Content-Transfer-Encoding: 8bit", body=b"caf\xe9\r\n")),
    Case("b8part", mime(b"--inner-b\nContent-Transfer-Encoding: 8bit\n\ncaf\xe9\n--inner-b\n\nfin caf\xe9\n--inner-b--\n")),
    Case("b8epilogue", mime(b"--inner-b\nContent-Transfer-Encoding: 8bit\n\ncaf\xe9\n--inner-b--\nend caf\xe9\n")),
    Case("badenc", head(b"MIME-Version: 1.0", b"Content-Type: text/plain", b"Content-Transfer-Encoding: foo")),
    Case("composite", head(b"MIME-Version: 1.0", b"Content-Transfer-Encoding: base64", b"Content-Type: multipart/mixed; boundary=a",
                           body=b"--a\r\n\r\nx\r\n")),
    Case("nestedenc", mime(b"--inner-b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nx\n--inner-b--\n")),
    *(Case(f"deep{levels}", deep(levels)) for levels in range(1, 7)),
]  # fmt: skip


def run_all(name: str, top: Path, cases: list[Case] = CASES, more: str = "") -> dict[str, Outcome]:
    """All cases in one start of a system."""
    port = free_port()
    files = {
        "header_checks": ACTIONS,
        "mime_checks": MIME,
        "nested_checks": NESTED,
        "body_checks": BODY,
        "mailboxes": "".join(f"{n}@box.test {n}/\n" for n in sorted({"other", "copy", "one", *(case.name for case in cases)})),
    }
    peer = peers.Peer(name, top, MAIN_CF + more, MASTER_CF, files=files, values={"smtp": port, "mail": top / "mail"})
    replies = {}
    try:
        peer.start()
        for case in cases:
            replies[case.name] = submit(peer, port, case)
        peers.wait_until(lambda: not held_only(peer), 60, "mail is still under way")
        peer.command("postsuper", "-H", "ALL")
        peer.command("postqueue", "-f")
        peer.flush_and_wait(60)
    finally:
        peer.stop()
    log = peer.log()
    return {case.name: Outcome(replies[case.name], interesting(log, case), mail_of(peer.mail, case)) for case in cases}


def held_only(peer: peers.Peer) -> list[str]:
    """Queue ids that are in the queue and not on hold, or still in maildrop."""
    listing = peer.command("postqueue", "-p").stdout.decode()
    waiting = re.findall(r"^\w+(?!\w)(?!!).*$", listing, re.M)
    return [line for line in waiting if not line.startswith(("Mail", "----"))]


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, dict[str, Outcome]]]:
    """System -> case -> outcome."""
    base = Path(tempfile.mkdtemp(prefix="checks-"))
    base.chmod(0o755)
    try:
        found = {name: run_all(name, base / name) for name in peers.NAMES}
        for name in peers.NAMES:
            found[name] |= run_all(name, base / f"strict-{name}", STRICT_CASES, STRICT_CF)
        yield found
    finally:
        shutil.rmtree(base, ignore_errors=True)


_ENDS = "a MIME error is logged behind the header that causes it, and nothing is looked at after it"
DIFFERS = {
    "redirectmany": "one recipient is left when the queue manager hears of the message",
    **dict.fromkeys(("b8part", "nestedenc", "deep4", "deep5", "deep6"), _ENDS),
}


@pytest.mark.parametrize("case", CASES + STRICT_CASES, ids=lambda case: case.name)
def test_content_checks(results: dict[str, dict[str, Outcome]], case: Case) -> None:
    """The same replies, log lines and mail."""
    ours, reference = results["estafeta"][case.name], results["postfix"][case.name]
    assert ours.replies == reference.replies
    assert ours.mail == reference.mail
    if case.name in DIFFERS:
        assert ours.log != reference.log, "no longer different: take it out of DIFFERS and docs/differs.md"
        pytest.xfail(DIFFERS[case.name])
    assert ours.log == reference.log


if __name__ == "__main__":  # look at what a system does
    import pprint

    for found in [run_all(sys.argv[1], Path(tempfile.mkdtemp(prefix="checks-")))]:
        for key, outcome in found.items():
            if len(sys.argv) < 3 or key in sys.argv[2:]:
                print("==", key)
                pprint.pprint([outcome.replies[-2:], outcome.log, outcome.mail], width=200)
