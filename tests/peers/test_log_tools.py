"""pflogsumm and fail2ban read both logs alike: the same totals, the same callers to be banned.

The same scene on Debian's Postfix and on Estafeta: deliveries of all kinds, refusals for many reasons, bounces, deferrals, rude clients.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import peers
from support.ports import free_port

_MISSING = peers.missing() or next((f"{one} is not installed" for one in ("pflogsumm", "fail2ban-regex") if not shutil.which(one)), None)

pytestmark = [
    pytest.mark.skipif(_MISSING is not None, reason=_MISSING or ""),
    pytest.mark.xdist_group("peers"),
]

MAIN_CF = """\
myhostname = mail.here.test
mydomain = here.test
myorigin = here.test
mydestination =
mynetworks = 127.0.0.1
inet_interfaces = 127.0.0.1
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 4
virtual_mailbox_domains = box.test
virtual_mailbox_maps = inline:{ {joe@box.test = joe/}, {ann@box.test = ann/}, {full@box.test = full/} }
virtual_mailbox_base = {mail}
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 1
virtual_alias_domains = alias.test
virtual_alias_maps = inline:{ { both@alias.test = joe@box.test, ann@box.test } }
relay_domains = gone.test, dead.test, away.test
transport_maps = inline:{ { gone.test = error:5.1.1 nobody there }, { dead.test = smtp:[127.0.0.1]:1 }, { away.test = discard: } }
alias_maps =
alias_database =
disable_dns_lookups = yes
message_size_limit = 20000
header_checks = regexp:{etc}/headers
smtpd_client_restrictions = check_client_access cidr:{etc}/clients
smtpd_helo_required = yes
smtpd_helo_restrictions = permit_mynetworks, reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname
smtpd_sender_restrictions = reject_non_fqdn_sender, check_sender_access inline:{ { bad@sender.test = REJECT go away }, { slow@sender.test = DEFER later } }
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
"""  # fmt: skip
CONTENT = b"Subject: s\r\nMessage-Id: <1@x.test>\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\nFrom: a@b.test\r\n\r\nbody\r\n"
LOG_NAME = {"postfix": "postfix-postfix", "estafeta": "postfix-estafeta"}


def play(name: str, top: Path) -> str:
    """The scene; the log, with the same program names on both."""
    port = free_port()
    files = {"headers": "/^X-Bad:/ REJECT not this\n/^X-Warn:/ WARN look\n/^X-Hold:/ HOLD\n", "clients": "127.0.0.66 REJECT banned\n127.0.0.77 DEFER later\n"}
    system = peers.Peer(name, top, MAIN_CF, f"127.0.0.1:{port} inet n - n - - smtpd\n", files=files, values={"mail": top / "mail"})

    def talk(source: str, recipients: list[str], sender: str = "a@sender.test", content: bytes = CONTENT, helo: str = "client.test") -> None:
        peers.Conversation(peers.connect("127.0.0.1", port, source)).message(sender, recipients, content, helo)

    try:
        system.start()
        for number in range(3):
            talk("127.0.0.1", ["joe@box.test"], f"s{number}@sender.test")
        talk("127.0.0.1", ["both@alias.test", "x@away.test", "ann@box.test"])
        talk("127.0.0.1", ["x@dead.test", "joe@box.test"])
        talk("127.0.0.1", ["x@away.test", "y@away.test"], content=CONTENT + b"long line of text\r\n" * 500)
        talk("127.0.0.5", ["nobody@box.test", "who@alias.test", "x@gone.test"])
        talk("127.0.0.5", ["x@elsewhere.test"])
        talk("127.0.0.6", ["joe@box.test"], helo="-bad-")
        talk("127.0.0.6", ["joe@box.test"], helo="short")
        talk("127.0.0.7", ["joe@box.test"], "bad@sender.test")
        talk("127.0.0.7", ["joe@box.test"], "slow@sender.test")
        talk("127.0.0.7", ["joe@box.test"], "nodomain")
        talk("127.0.0.66", ["joe@box.test"])
        talk("127.0.0.77", ["joe@box.test"])
        talk("127.0.0.1", ["joe@box.test"], content=b"X-Bad: yes\r\n" + CONTENT)
        talk("127.0.0.1", ["joe@box.test"], content=b"X-Warn: yes\r\n" + CONTENT)
        talk("127.0.0.1", ["ann@box.test"], content=b"X-Hold: yes\r\n" + CONTENT)
        talk("127.0.0.1", ["joe@box.test"], content=CONTENT + b"x" * 25000 + b"\r\n")
        rude = peers.Conversation(peers.connect("127.0.0.1", port, "127.0.0.8"))
        rude.reply()
        for _ in range(8):
            rude.ask(b"WHAT")
        rude.close()
        lost = peers.Conversation(peers.connect("127.0.0.1", port, "127.0.0.9"))
        lost.reply()
        lost.ask(b"EHLO lost.test")
        lost.close()
        plain = peers.Conversation(peers.connect("127.0.0.1", port, "127.0.0.10"))
        plain.reply()
        plain.ask(b"GET / HTTP/1.0")
        plain.close()
        sent = system.command("sendmail", "-f", "local@box.test", "joe@box.test", "none@gone.test", input_bytes=b"Subject: s\n\nx\n")
        assert sent.returncode == 0, sent.stderr
        system.wait_log("status=deferred")
        peers.wait_until(lambda: system.command("postqueue", "-p").stdout.count(b"@sender.test") == 2, 20, "only what waits is left")
        time.sleep(1)
        system.command("postsuper", "-d", "ALL")
    finally:
        system.stop()
    return re.sub(rf"(?m)^(\w{{3}} [ \d]\d [\d:]{{8}} )\S+ {LOG_NAME[name]}/", r"\1mail postfix/", system.log())


@pytest.fixture(scope="module")
def logs() -> Iterator[dict[str, Path]]:
    """System -> its log file."""
    base = Path(tempfile.mkdtemp(prefix="logs-"))
    base.chmod(0o755)
    found = {}
    try:
        for name in peers.NAMES:
            found[name] = base / f"{name}.log"
            found[name].write_text(play(name, base / name), errors="surrogateescape")
        yield found
    finally:
        shutil.rmtree(base, ignore_errors=True)


def summary(log: Path, *options: str) -> str:
    """pflogsumm's report without what depends on the clock, the sizes of other words, and queue ids."""
    done = subprocess.run(["pflogsumm", *options, str(log)], capture_output=True, text=True, check=True, timeout=60)
    assert "Grand Totals" in done.stdout
    text = peers.normal(done.stdout)
    text = text[: text.index("Per-Hour Traffic Summary")] + text[text.index("Host/Domain Summary: Message Delivery") :]
    text = re.sub(r"(?m)^.*\bbytes (?:received|delivered)$", "BYTES", text)
    lines = []
    for line in text.splitlines():
        line = re.sub(r"^( *\d+ +)\d+k?( +\d+ +)[\d.]+ [smhd] +[\d.]+ [smhd]( )", r"\1N\2TIME\3", line)  # sizes and delays per host
        line = re.sub(r"^( *\d+ +)\d+k?( +\S+\.test)$", r"\1N\2", line)
        lines.append(line)
    return "\n".join(lines)


def test_pflogsumm_totals(logs: dict[str, Path]) -> None:
    """Received, delivered, deferred, bounced, rejected, held, senders, recipients: all the same."""

    def grand(name: str) -> list[tuple[str, str]]:
        text = summary(logs[name])
        return re.findall(r"(?m)^ *(\d+) {3}(\w[\w/ -]*)", text[: text.index("Host/Domain Summary")])

    ours, reference = grand("estafeta"), grand("postfix")
    totals = {what.split(" ")[0]: int(count) for count, what in reversed(reference)}
    assert totals["received"] > 5 and totals["rejected"] > 5 and totals["bounced"] and totals["held"], totals
    assert ours == reference


def test_pflogsumm_details(logs: dict[str, Path]) -> None:
    """The breakdown: who, why, how often. Only what the master says at its start is each system's own."""
    found = []
    for name in ("estafeta", "postfix"):
        text = summary(logs[name], "--problems-first", "--smtpd-stats")
        text = re.sub(r"(?m)^  master \(total: \d+\)\n(?:   +.*\n)*|^ +1   (?:daemon started|terminating on).*\n|^.*connect time.*\n|^.*main\.cf.*\n", "", text)
        # Sizes differ by the length of queue ids (in Received), and lists are sorted by size.
        text = re.sub(r"\d+:\d\d:\d\d( +)\S+( +)\S+", "TIME", text)
        found.append(sorted(re.sub(r"^ +\d+( {3}\S+@\S+)$", r"SIZE\1", line) for line in text.splitlines()))
    assert found[0] == found[1]


@pytest.mark.parametrize("mode", ["more", "auth", "normal", "rbl", "ddos", "extra", "aggressive", "errors"])
def test_fail2ban(logs: dict[str, Path], mode: str) -> None:
    """The filter of the package finds the same callers, as often."""

    def banned(log: Path) -> list[str]:
        done = subprocess.run(
            ["fail2ban-regex", "-o", "ip", str(log), f"postfix[mode={mode}]"], capture_output=True, text=True, check=False, timeout=60
        )
        return sorted(done.stdout.split())

    ours, reference = banned(logs["estafeta"]), banned(logs["postfix"])
    if mode in ("more", "normal", "extra", "aggressive"):
        assert {"127.0.0.5", "127.0.0.66"} <= set(reference), reference
    assert ours == reference

