"""docs/tutorial.md, chapters 4 to 7: every block is read from the page, started and used."""

from __future__ import annotations

import base64
import os
import shutil
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import netns, peers
from support.certificates import Authority
from support.instance import Client, Instance, wait_for
from support.ports import free_port
from support.smtp_sink import SmtpSink
from support.smtp_sink_thread import SinkThread
from support.tls_client import TlsClient, client_context
from support.tutorial import blocks, instance_of, without_comments

STRANGERS = "mynetworks = 192.0.2.0/24\n"


@contextmanager
def started(instance: Instance) -> Iterator[Instance]:
    """It runs; it has said nothing unexpected at the end."""
    try:
        check = instance.command("postfix", "check")
        assert check.returncode == 0, check.stderr
        instance.start()
        yield instance
        assert instance.unexpected() == []
        instance.stop()
    finally:
        if instance.processes():
            instance.command("postfix", "abort")
        instance.remove()


def greeted(port: int) -> Client:
    client = Client(port)
    client.reply()
    client.ask(b"EHLO client.world.example")
    return client


def send(instance: Instance, recipient: bytes, content: bytes = b"Subject: tutorial\r\n\r\nx") -> bytes:
    with greeted(instance.port) as client:
        return client.send(b"ana@world.example", [recipient], content)


def moved(instance: Instance, old: str, port: int) -> None:
    """Another port for a service of master.cf."""
    instance.write("master.cf", (instance.etc / "master.cf").read_text().replace(old, f"127.0.0.1:{port}"))


def test_tls() -> None:
    wrapped = free_port()
    with SinkThread(SmtpSink()) as sink:
        more = f"local_recipient_maps =\ntransport_maps = inline:{{ {{ partner.example = smtp:[127.0.0.1]:{sink.port} }} }}\n"
        # The policy goes by next hop, which is the domain itself where its MX is asked for.
        instance = instance_of("tls", more=more, replace={"partner.example        secure": f"[127.0.0.1]:{sink.port} secure"})
        moved(instance, "465 ", wrapped)
        text = (instance.etc / "master.cf").read_text()
        instance.write("master.cf", text.replace(f"127.0.0.1:{wrapped}", f"127.0.0.1:{wrapped} "))
        (instance.etc / "cert").mkdir(mode=0o700)
        pair = Authority(instance.etc / "cert").issue("mail.campus.example", "mail.campus.example", file="made")
        shutil.copy(pair.certificate, instance.etc / "cert" / "cert.pem")
        shutil.copy(pair.key, instance.etc / "cert" / "key.pem")
        shutil.copy(Authority(instance.etc / "cert").certificate, instance.etc / "cert" / "ca.pem")
        made = instance.command("postmap", f"{instance.etc}/tls_policy")
        assert made.returncode == 0, made.stderr
        with open(instance.etc / "main.cf", "a") as file:
            file.write("virtual_mailbox_domains = box.test\n")
        with started(instance):
            client = TlsClient(instance.port)
            client.start_tls(client_context())
            assert client.ask(b"EHLO x").startswith(b"250-")
            assert client.send(b"a@b.example", [b"joe@box.test"], b"Subject: x\r\n\r\nx").startswith(b"250 ")
            client.close()
            wait_for(lambda: instance.mailbox("joe"), what="mail over TLS")
            assert "(using TLSv1.3 with cipher " in instance.mailbox("joe")[0].read_text()
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(Client(wrapped).socket) as secure:
                assert secure.recv(100).startswith(b"220 ")
            # The partner has no TLS: mail for it waits, because the policy says so.
            assert send(instance, b"ann@partner.example").startswith(b"250 ")
            instance.wait_log(r"to=<ann@partner.example>.*status=deferred \(TLS is required, but was not offered")
            assert sink.contents == []


def logs_in(client: Client, user: bytes, password: bytes) -> bytes:
    return client.ask(b"AUTH PLAIN " + base64.b64encode(b"\0" + user + b"\0" + password))


def with_account(instance: Instance) -> Instance:
    made = instance.command("saslpasswd2", "-p", "-c", "-f", f"{instance.etc}/sasldb2", "-u", "campus.example", "games", input="secret\n")
    assert made.returncode == 0, made.stderr
    listed = instance.command("sasldblistusers2", "-f", f"{instance.etc}/sasldb2")
    assert "games@campus.example: userPassword" in listed.stdout
    return instance


def test_auth_on_every_port() -> None:
    with started(with_account(instance_of("auth", more=STRANGERS))) as instance, greeted(instance.port) as client:
        hello = client.ask(b"EHLO x")
        for word in (b"PLAIN", b"LOGIN", b"CRAM-MD5", b"DIGEST-MD5", b"SCRAM-SHA-256"):
            assert word in hello
        assert b"250-AUTH=" in hello and b"250-AUTH " in hello
        assert client.send(b"games@campus.example", [b"x@discard.test"], b"\r\nx").startswith(b"554 5.7.1 ")
        client.ask(b"RSET")
        assert logs_in(client, b"games", b"wrong").startswith(b"535 5.7.8 ")
        assert logs_in(client, b"games", b"secret").startswith(b"235 2.7.0 ")
        assert client.send(b"games@campus.example", [b"x@discard.test"], b"\r\nx").startswith(b"250 ")
        instance.wait_log(r"sasl_method=PLAIN, sasl_username=games")


def test_auth_on_one_port() -> None:
    port = free_port()
    instance = with_account(instance_of("auth-port", more=STRANGERS))
    moved(instance, "8025 ", port)
    instance.write("master.cf", (instance.etc / "master.cf").read_text().replace(f":{port}", f":{port} "))
    with started(instance), greeted(instance.port) as plain, greeted(port) as login:
        assert b"AUTH" not in plain.ask(b"EHLO x")
        assert b"AUTH" in login.ask(b"EHLO x")
        assert login.send(b"games@campus.example", [b"x@discard.test"], b"\r\nx")[:3] == b"554"
        login.ask(b"RSET")
        assert logs_in(login, b"games", b"secret").startswith(b"235 ")
        assert login.send(b"games@campus.example", [b"x@discard.test"], b"\r\nx").startswith(b"250 ")


def test_auth_as_a_client() -> None:
    """It logs in at the server that the table names (ours, with the accounts of 5.2)."""
    server = with_account(instance_of("auth", more=STRANGERS))
    with started(server):
        ports = {"[smtp.provider.example]:587": f"[127.0.0.1]:{server.port}", "campus:secret": "games:secret"}
        client = instance_of("auth-client", replace=ports)
        assert client.command("postmap", f"{client.etc}/auth_passwd").returncode == 0
        with started(client):
            assert send(client, b"x@elsewhere.example").startswith(b"250 ")
            server.wait_log(r"sasl_method=\S+, sasl_username=games")
            client.wait_log(r"to=<x@elsewhere.example>.*status=")
        for system in (client, server):
            assert "secret" not in system.log()


def test_filter() -> None:
    user = "daemon" if os.geteuid() == 0 else __import__("pwd").getpwuid(os.geteuid()).pw_name
    instance = instance_of("filter", replace={"user=filter": f"user={user}", "sendmail -G": "{etc}/sendmail -G"},
                           more="virtual_mailbox_domains = box.test\n")  # fmt: skip
    out = instance.directory / "handed-back"
    out.mkdir()
    out.chmod(0o1777)
    # The filter's user need not be able to read where Python lives: what it hands to sendmail is passed on by the test.
    instance.write("sendmail", f'#!/bin/sh\ntmp=$(mktemp {out}/t.XXXXXX)\necho "$@" > $tmp\ncat >> $tmp\nchmod 644 $tmp\nmv $tmp $tmp.done\n')
    for name in ("sendmail", "filter"):
        (instance.etc / name).chmod(0o755)
    stop = threading.Event()

    def hand_back() -> None:
        while not stop.is_set():
            for path in out.glob("*.done"):
                arguments, _, message = path.read_text().partition("\n")
                path.unlink()
                assert instance.command("sendmail", *arguments.split(), input=message).returncode == 0
            time.sleep(0.02)

    thread = threading.Thread(target=hand_back)
    with started(instance):
        thread.start()
        try:
            assert send(instance, b"joe@box.test").startswith(b"250 ")
            wait_for(lambda: instance.mailbox("joe"), what="the message behind the filter")
            assert instance.mailbox("joe")[0].read_text().count("Received: ") == 2
            assert send(instance, b"joe@box.test", b"Subject: v\r\n\r\nX5O!P%@AP").startswith(b"250 ")
            instance.wait_log(r"relay=filter, .*dsn=5.7.1, status=bounced \(this message has a virus")
            assert len(instance.mailbox("joe")) == 1
            sent = instance.command("sendmail", "ann@box.test", input="Subject: v\n\nX5O!P%@AP\n")
            assert sent.returncode == 0
            wait_for(lambda: instance.mailbox("ann"), what="local mail, which is not filtered")
        finally:
            stop.set()
            thread.join()


def test_scanner() -> None:
    back = free_port()
    with SinkThread(SmtpSink()) as scanner:
        instance = instance_of("scanner", replace={"[127.0.0.1]:10024": f"[127.0.0.1]:{scanner.port}", "127.0.0.1:10025": f"127.0.0.1:{back}"},
                               more="virtual_mailbox_domains = box.test\n")  # fmt: skip
        with started(instance):
            assert send(instance, b"joe@box.test").startswith(b"250 ")
            wait_for(lambda: scanner.contents, what="the message at the scanner")
            assert instance.mailbox("joe") == []
            with greeted(back) as client:
                content = scanner.contents[0].removesuffix(b"\r\n")
                assert client.send(b"ana@world.example", [b"joe@box.test"], content).startswith(b"250 ")
            wait_for(lambda: instance.mailbox("joe"), what="the message behind the scanner")
            assert len(scanner.contents) == 1


def test_notices() -> None:
    instance = instance_of("notices", more="virtual_mailbox_domains = box.test\n" + STRANGERS)
    with started(instance):
        with greeted(instance.port) as client:
            assert client.send(b"ana@world.example", [b"x@elsewhere.example"], b"\r\nx")[:3] in (b"454", b"554")
            client.ask(b"QUIT")
        wait_for(lambda: instance.mailbox("postmaster"), what="a notice")
        text = instance.mailbox("postmaster")[0].read_text()
        assert "In:  RCPT TO:<x@elsewhere.example>" in text and "Relay access denied" in text


GUARD = f"""\
myhostname = mail.campus.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 10.7.1.1
virtual_mailbox_domains = box.test
virtual_mailbox_maps = static:any
virtual_transport = discard:
alias_maps =
smtpd_relay_restrictions = reject_unauth_destination
{blocks("en")["guard"]["main.cf"]}"""


@pytest.mark.skipif(netns.missing() is not None or peers.missing() is not None, reason=netns.missing() or peers.missing() or "")
def test_guard() -> None:
    """With a DNS of the test's own, in a network namespace."""
    base = Path(tempfile.mkdtemp(prefix="guard-"))
    base.chmod(0o755)
    zones: dict[str, object] = {
        "good.world.example": {"A": ["10.7.1.10"]},
        "10.1.7.10.in-addr.arpa": {"PTR": ["good.world.example"]},
        "11.1.7.10.in-addr.arpa": {"PTR": ["listed.world.example"]},
        "11.1.7.10.zen.blocklist.example": {"A": ["127.0.0.2"], "TXT": ['"you are on the list"']},
        "world.example": {"MX": ["10 good.world.example"]},
        "spammer.example": {"A": ["10.7.1.10"]},
    }
    hosts = {"mail": ["10.7.1.1/16"], "client": ["10.7.1.10/16", "10.7.1.11/16", "10.7.1.12/16"]}
    with netns.network(hosts, zones, ["10.7.0.1/16"]) as network:
        system = peers.Peer("estafeta", base, GUARD.replace("/etc/postfix/", "{etc}/"), "10.7.1.1:25 inet n - n - - smtpd\n",
                            files={"sender_access": blocks("en")["guard"]["sender_access"]}, prefix=network.prefix("mail"))  # fmt: skip
        try:
            made = system.command("postmap", f"{system.etc}/sender_access")
            assert made.returncode == 0, made.stderr
            system.start()

            def answer(source: str, helo: str, sender: str) -> str:
                talk = peers.Conversation(network.connect("client", "10.7.1.1", source=source))
                talk.reply()
                if helo:
                    talk.ask(f"EHLO {helo}".encode())
                said = talk.ask(f"MAIL FROM:<{sender}>".encode())
                if said.startswith("250"):
                    said = talk.ask(b"RCPT TO:<joe@box.test>")
                talk.close()
                return said

            good = ("10.7.1.10", "good.world.example", "ana@world.example")
            assert answer(*good).startswith("250 ")
            assert answer("10.7.1.12", *good[1:]).startswith("450 4.7.1 Client host rejected: cannot find your reverse hostname")
            assert "blocked using zen.blocklist.example; you are on the list" in answer("10.7.1.11", *good[1:])
            assert answer("10.7.1.10", "", good[2]).startswith("503 5.5.1 ")
            assert "need fully-qualified hostname" in answer("10.7.1.10", "desk", good[2])
            assert "Invalid name" in answer("10.7.1.10", "-bad-", good[2])
            assert "Host not found" in answer("10.7.1.10", "nowhere.example", good[2])
            assert "Domain not found" in answer(*good[:2], "ana@nowhere.example")
            assert "not welcome here" in answer(*good[:2], "ana@spammer.example")
            assert answer(*good[:2], "friend@spammer.example").startswith("250 ")
        finally:
            system.stop()
            shutil.rmtree(base, ignore_errors=True)


def test_checks() -> None:
    with started(instance_of("checks", more="virtual_mailbox_domains = box.test\n")) as instance:
        for content, reply in (
            (b"Subject: Re: Your password!\r\n\r\nx", b"550 5.7.1 message content rejected"),
            (b"X-Unsent: 1\r\n\r\nx", b"550 5.7.1 that is a draft"),
            (b"Content-Disposition: attachment; filename=\"a.exe\"\r\n\r\nx", b"550 5.7.1 no programs, please"),
            (b"Subject: x\r\n\r\nGUARANTEED!", b"550 5.7.1 message content rejected"),
            (b"Subject: x\r\nX-Trace: secret\r\n\r\nfree membership", b"250 "),
        ):
            assert send(instance, b"joe@box.test", content).startswith(reply), content
        wait_for(lambda: instance.mailbox("joe"), what="the message that may pass")
        assert "X-Trace" not in instance.mailbox("joe")[0].read_text()
        instance.wait_log(r"warning: body free membership from localhost")


def test_sizes() -> None:
    with started(instance_of("sizes", more="virtual_mailbox_domains = box.test\n")) as instance:
        assert send(instance, b"joe@box.test", b"Subject: x\r\n\r\n" + b"x" * 15000).startswith(b"250 ")
        assert send(instance, b"joe@box.test", b"Subject: x\r\n\r\n" + b"x" * 25000).startswith(b"552 5.3.4 ")
    wrong = instance_of("sizes", more="mailbox_size_limit = 1000\n")
    try:
        refused = wrong.command("postfix", "start")
        assert refused.returncode != 0
        assert "mailbox_size_limit is smaller than message_size_limit" in refused.stderr
    finally:
        wrong.remove()


def test_jail() -> None:
    """As root everything but local and virtual runs in the queue directory; without root nothing can be jailed."""
    instance = instance_of("jail", more="virtual_mailbox_domains = box.test\n")
    with started(instance):
        assert send(instance, b"joe@box.test").startswith(b"250 ")
        wait_for(lambda: instance.mailbox("joe"), what="mail from jailed services")
        if os.geteuid() == 0:
            for program in ("smtpd", "cleanup", "qmgr", "trivial-rewrite"):
                for pid in instance.pids(program):
                    assert os.readlink(f"/proc/{pid}/root") == str(instance.spool), program
    assert all(line.split()[4] == "n" for line in without_comments(blocks("en")["jail"]["master.cf"]) if line.split()[7] in ("local", "virtual"))
