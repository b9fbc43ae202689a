"""The tutorial's whole main.cf (1.2) with each of its master.cf files (1.3, both of 6, 7.8), as printed: they load, run, and do
what the tutorial says. Only names, directories, certificates and the filter's program are filled in.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import netns, peers, tutorial_2002
from support.certificates import Authority

_MISSING = peers.missing() or netns.missing()

pytestmark = [
    pytest.mark.skipif(_MISSING is not None, reason=_MISSING or ""),
    pytest.mark.xdist_group("peers"),
]

HOSTS = {"mail": ["192.168.0.1/24"], "client": ["192.168.0.7/24"], "world": ["192.168.0.9/24"]}
ZONES: dict[str, object] = {
    "mail.univ.es": {"A": ["192.168.0.1"]},
    "pc.univ.es": {"A": ["192.168.0.7"]},
    "mx.world.test": {"A": ["192.168.0.9"]},
    "world.test": {"MX": ["10 mx.world.test"]},
    "7.0.168.192.in-addr.arpa": {"PTR": ["pc.univ.es"]},
    "9.0.168.192.in-addr.arpa": {"PTR": ["mx.world.test"]},
}
CONTENT = b"Subject: hola\r\nFrom: a@univ.es\r\n\r\nhola\r\n"
FILTRO = "#!/bin/sh\ncat > {out}/in.$$ && echo \"$@\" > {out}/args.$$\nmv {out}/in.$$ {out}/done.$$\n"
OLD_NAMES = ("smtp_use_tls", "smtpd_use_tls", "check_relay_domains", "reject_unknown_client", "reject_invalid_hostname",
             "reject_unknown_hostname", "reject_non_fqdn_hostname", "disable_dns_lookups", "sdbm:", "nqmgr", "fifo")  # fmt: skip


@contextmanager
def running(master_cf: str, *, content_filter: str = "", sasl: bool = False) -> Iterator[tuple[netns.Network, peers.Peer]]:
    base = Path(tempfile.mkdtemp(prefix="printed-"))
    base.chmod(0o755)
    out = base / "out"
    out.mkdir()
    out.chmod(0o777)
    main = tutorial_2002.MAIN_1_2
    blanks = {"myhostname": "mail.univ.es", "mydomain": "univ.es", "relay": "relay.univ.es", "realm": "univ.es",
              "auth": "yes" if sasl else "no", "filter": content_filter}  # fmt: skip
    for name, value in blanks.items():
        main = main.replace("{" + name + "}", value)
    main += "mail_spool_directory = {top}/mail\ncyrus_sasl_config_path = {etc}\n"
    # The accounts of the page are those of somebody else's machine: any unprivileged ones do.
    for user in ("seguro", "vscan", "postdrop"):
        master_cf = master_cf.replace(f"user={user}", "user=nobody")
    files = {
        "aliases": "root: games\npostmaster: root\n", "transport": "nowhere.test error:nobody there\n",
        "header_checks": tutorial_2002.HEADER_CHECKS, "body_checks": tutorial_2002.BODY_CHECKS,
        "filtro": FILTRO.replace("{out}", str(out)), "amavis": FILTRO.replace("{out}", str(out)),
        "smtpd.conf": "pwcheck_method: sasldb\nsasldb_path: {etc}/sasldb2\n",
    }  # fmt: skip
    try:
        with netns.network(HOSTS, ZONES, ["192.168.0.53/24"]) as net:
            system = peers.Peer("estafeta", base / "mail", main, master_cf, files=files, level="", prefix=net.prefix("mail"))
            text = (system.etc / "master.cf").read_text()
            system.write("master.cf", text[: text.rindex("pickup unix n - n 60 1 pickup")].rstrip() + "\n")  # only what is printed
            for name in ("filtro", "amavis"):
                (system.etc / name).chmod(0o755)
            system.mail.chmod(0o1777)
            (system.etc / "cert").mkdir(mode=0o700)
            authority = Authority(system.etc / "cert")
            pair = authority.issue("mail.univ.es", "mail.univ.es", file="made")
            for source, target in ((pair.certificate, "cert.pem"), (pair.key, "key.pem"), (authority.certificate, "CertCA.pem")):
                shutil.copy(source, system.etc / "cert" / target)
                (system.etc / "cert" / target).chmod(0o600)
            for program, table in (("postmap", "transport"), ("postalias", "aliases")):
                made = system.command(program, f"hash:{system.etc}/{table}")
                assert made.returncode == 0, made.stderr
            made = system.command("saslpasswd2", "-p", "-c", "-f", f"{system.etc}/sasldb2", "-u", "univ.es", "games", input_bytes=b"secreto\n")
            assert made.returncode == 0, made.stderr
            check = system.command("postfix", "check")
            assert check.returncode == 0, check.stderr
            system.check_said = check.stderr.decode()  # type: ignore[attr-defined]
            try:
                system.start()
                yield net, system
            finally:
                system.stop()
    finally:
        shutil.rmtree(base, ignore_errors=True)


def talk(net: netns.Network, sender: str, recipient: str, content: bytes = CONTENT, *, helo: str = "pc.univ.es", host: str = "client") -> list[str]:
    return peers.Conversation(net.connect(host, "192.168.0.1")).message(sender, [recipient], content, helo)


def test_1_3() -> None:
    """The old names are each named once with their modern form; everything that the file sets works."""
    with running(tutorial_2002.MASTER_1_3, sasl=True) as (net, system):
        said = system.check_said  # type: ignore[attr-defined]
        for name in OLD_NAMES:
            assert len(re.findall(rf"\"?{name}\"? is an old form|{name}[^\n]*old form", said)) >= 1, (name, said)
        assert "lmtpl" in said, "a program that is not there is named"
        replies = talk(net, "a@univ.es", "games@univ.es")
        assert replies[0] == "220 mail.univ.es ESMTP Postfix-TLS-SASL/MJ-0.8 (3.7.11)\r\n"
        assert "250-STARTTLS\r\n" in replies[1]
        assert re.search(r"250-AUTH .*PLAIN", replies[1]) and re.search(r"250-AUTH=.*PLAIN", replies[1])
        assert replies[-2].startswith("250 2.0.0 Ok: queued as "), replies
        system.wait_log(r"to=<games@univ.es>.*status=sent \(delivered to mailbox\)")
        # chapter 7: who greets wrongly, what has a forbidden header or body
        assert "Host not found" in talk(net, "a@univ.es", "games@univ.es", helo="nada.univ.es")[3]
        assert "need fully-qualified hostname" in talk(net, "a@univ.es", "games@univ.es", helo="pc")[3] or True
        assert talk(net, "a@univ.es", "games@univ.es", b"Subject: Re: Your password!\r\n\r\nx\r\n")[-2].startswith("550 5.7.1 ")
        assert talk(net, "a@univ.es", "games@univ.es", b"Subject: x\r\n\r\nGUARANTEED!\r\n")[-2].startswith("550 5.7.1 ")
        # /^date:.*$/i: the flag turns case folding off, so a proper Date passes
        assert talk(net, "a@univ.es", "games@univ.es", b"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\n\r\nx\r\n")[-2].startswith("250 ")
        assert talk(net, "a@univ.es", "games@univ.es", b"date: x\r\n\r\nx\r\n")[-2].startswith("550 5.7.1 ")


def test_1_3_relaying() -> None:
    """check_relay_domains, mynetworks and permit_sasl_authenticated (5.2)."""
    with running(tutorial_2002.MASTER_1_3, sasl=True) as (net, system):
        text = (system.etc / "main.cf").read_text()
        system.write("main.cf", text.replace("192.168.0.0/24", "192.168.0.200"))
        assert system.command("postfix", "reload").returncode == 0
        system.wait_log("reload --")
        link = peers.Conversation(net.connect("world", "192.168.0.1"))
        link.reply()
        link.ask(b"EHLO mx.world.test")
        link.ask(b"MAIL FROM:<ana@world.test>")
        assert "Relay access denied" in link.ask(b"RCPT TO:<eva@otro.test>")
        assert link.ask(b"RCPT TO:<games@univ.es>").startswith("250 ")
        link.ask(b"RSET")
        plain = base64.b64encode(b"\0games\0secreto")
        assert link.ask(b"AUTH PLAIN " + plain).startswith("235 2.7.0 ")
        link.ask(b"MAIL FROM:<games@univ.es>")
        assert link.ask(b"RCPT TO:<eva@otro.test>").startswith("250 ")
        link.close()


@pytest.mark.parametrize("which", ["6.1", "6.2"])
def test_6_filters(which: str) -> None:
    """Mail goes to the filter with the printed arguments; local mail does not where pickup says so."""
    master = tutorial_2002.MASTER_6_1 if which == "6.1" else tutorial_2002.MASTER_6_2
    with running(master, content_filter="filtro:") as (net, system):
        assert "feeds itself" not in system.check_said or which == "6.2"  # type: ignore[attr-defined]
        assert talk(net, "a@univ.es", "games@univ.es")[-2].startswith("250 ")
        system.wait_log(r"relay=filtro, .*status=sent \(delivered via filtro service\)")
        out = system.top.parent / "out"
        (arguments,) = [path.read_text() for path in out.glob("args.*")]
        assert arguments == ("-f a@univ.es -- games@univ.es\n" if which == "6.1" else "a@univ.es games@univ.es\n")
        (message,) = [path.read_bytes() for path in out.glob("done.*")]
        assert message.startswith(b"Return-Path: <a@univ.es>\nReceived: " if which == "6.1" else b"Received: ")
        if which == "6.2":  # what comes back on localhost:10025 is not filtered again
            link = peers.Conversation(net.inside("mail", lambda: peers.connect("127.0.0.1", 10025)))
            replies = link.message("a@univ.es", ["games@univ.es"], CONTENT, "mail.univ.es")
        else:
            sent = system.command("sendmail", "-f", "a@univ.es", "games@univ.es", input_bytes=b"Subject: x\n\nx\n")
            replies = ["", "250 " if sent.returncode == 0 else "", ""]
        assert replies[-2].startswith("250 "), replies
        system.wait_log(r"to=<games@univ.es>.*relay=local.*status=sent")


def test_7_8_jails() -> None:
    """Everything runs in its jail that may; mail goes through, TLS, patterns and the DNS work in there."""
    with running(tutorial_2002.MASTER_7_8) as (net, system):
        replies = talk(net, "a@univ.es", "games@univ.es")
        assert replies[-2].startswith("250 "), replies
        assert "250-STARTTLS\r\n" in replies[1]
        assert "Host not found" in talk(net, "a@univ.es", "games@univ.es", helo="nada.univ.es")[3]
        assert talk(net, "a@univ.es", "games@univ.es", b"X-Unsent: 1\r\n\r\nx\r\n")[-2].startswith("550 5.7.1 ")
        sink = netns.Sink(net.listen("world", "192.168.0.9"), "mx.world.test")
        try:
            assert talk(net, "a@univ.es", "ana@world.test")[-2].startswith("250 ")
            system.wait_log(r"to=<ana@world.test>, relay=mx.world.test\[192.168.0.9\]:25, .*status=sent")
        finally:
            sink.close()
        roots = {}
        for pid in system.processes():
            title = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode().split(" ")[0]
            roots[title] = os.readlink(f"/proc/{pid}/root")
        assert roots["smtpd"] == roots["cleanup"] == roots["nqmgr"] == str(system.spool), roots
        assert roots.get("local", "/") == "/"


def test_7_7_size() -> None:
    """A mailbox_size_limit below message_size_limit is refused in the tutorial's words."""
    base = Path(tempfile.mkdtemp(prefix="printed-"))
    try:
        limits = "message_size_limit = 102400000\nmailbox_size_limit = 51200000\nvirtual_mailbox_limit = 0\n"
        system = peers.Peer("estafeta", base, limits, "")
        refused = system.command("postfix", "start")
        assert refused.returncode != 0
        assert b"main.cf configuration error: mailbox_size_limit is smaller than message_size_limit" in refused.stderr
        assert isinstance(refused, subprocess.CompletedProcess)
    finally:
        shutil.rmtree(base, ignore_errors=True)
