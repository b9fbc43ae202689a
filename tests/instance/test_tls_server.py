"""smtpd with TLS: STARTTLS and wrapper mode, keys of root alone, client certificates, resumption on every worker, injection."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.certificates import Authority, Pair
from support.instance import MASTER_CF, Client, running, wait_for
from support.ports import free_port
from support.tls_client import TlsClient, client_context, message

SETTINGS = """
smtpd_tls_cert_file = {pair.certificate}
smtpd_tls_key_file = {pair.key}
smtpd_tls_CAfile = {authority.certificate}
smtpd_tls_security_level = may
smtpd_tls_received_header = yes
smtpd_tls_loglevel = 1
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    directory = tmp_path_factory.mktemp("ca")
    for parent in (directory, *directory.parents[:3]):
        if os.stat(parent).st_uid == os.geteuid() and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    return Authority(directory)


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("mail.test.example", "mail.test.example", rsa_key=True)


@pytest.fixture
def settings(authority: Authority, pair: Pair) -> Iterator[str]:
    yield SETTINGS.format(pair=pair, authority=authority)


def test_starttls_and_wrapper_mode(settings: str) -> None:
    wrapped, enforced = free_port(), free_port()
    services = (
        f"127.0.0.1:{wrapped} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes\n"
        f"127.0.0.1:{enforced} inet n - n - - smtpd -o smtpd_tls_security_level=encrypt\n"
    )
    with running(settings, MASTER_CF + services) as instance:
        with TlsClient(instance.port) as client:
            client.start_tls()
            assert client.ask(b"STARTTLS") == b"554 5.5.1 Error: TLS already active\r\n"
            message(client)
            client.ask(b"QUIT")
        with TlsClient(wrapped) as client:
            client.secure()
            assert client.reply().startswith(b"220 ")
            assert b"STARTTLS" not in client.ask(b"EHLO client.test")
            message(client)
        with TlsClient(enforced) as client:
            client.reply()
            assert b"STARTTLS" in client.ask(b"EHLO client.test")
            for line in (b"MAIL FROM:<a@test.example>", b"RSET", b"VRFY x", b"ETRN x"):
                assert client.ask(line) == b"530 5.7.0 Must issue a STARTTLS command first\r\n"
            assert client.ask(b"NOOP") == b"250 2.0.0 Ok\r\n"
        wait_for(lambda: len(instance.mailbox("user")) == 2, what="two messages")
        for path in instance.mailbox("user"):
            text = path.read_text()
            assert re.search(
                r"Received: from client\.test \(\S+ \[127\.0\.0\.1\]\)\n"
                r"\t\(using TLSv1\.3 with cipher TLS_AES_256_GCM_SHA384 \(256/256 bits\)\n"
                r"\t key-exchange X25519 server-signature RSA-PSS \(2048 bits\) server-digest SHA256\)\n"
                r"\t\(No client certificate requested\)\n"
                r"\tby mail\.test\.example \(Postfix\) with ESMTPS id \w+\n",
                text,
            ), text
        instance.wait_log(
            r"Anonymous TLS connection established from \S+\[127.0.0.1\]: TLSv1\.3 with cipher TLS_AES_256_GCM_SHA384 "
            r"\(256/256 bits\) key-exchange X25519 server-signature RSA-PSS \(2048 bits\) server-digest SHA256\n",
            count=2,
        )
        assert not instance.unexpected()


def test_what_is_injected_behind_starttls_is_thrown_away(settings: str) -> None:
    with running(settings) as instance, TlsClient(instance.port) as client:
        client.reply()
        client.ask(b"EHLO client.test")
        client.ask(b"MAIL FROM:<before@test.example>")
        client.socket.sendall(b"STARTTLS\r\nMAIL FROM:<evil@test.example>\r\nRSET\r\n")
        assert client.reply() == b"220 2.0.0 Ready to start TLS\r\n"
        client.secure()
        # Neither the injected commands nor the transaction from before are there.
        assert client.ask(b"RCPT TO:<user@box.test>") == b"503 5.5.1 Error: need MAIL command\r\n"
        assert b"STARTTLS" not in client.ask(b"EHLO client.test")
        message(client)
        assert "evil@" not in instance.log()


def test_a_client_that_speaks_no_tls_hurts_nobody(settings: str) -> None:
    with running(settings + "smtpd_starttls_timeout = 2s\n") as instance:
        silent = Client(instance.port)
        silent.reply()
        silent.ask(b"EHLO x")
        silent.ask(b"STARTTLS")
        with Client(instance.port) as client:
            client.reply()
            client.ask(b"EHLO x")
            client.ask(b"STARTTLS")
            client.socket.sendall(b"MAIL FROM:<x@test.example>\r\n" * 20)
            assert b"250" not in client.reply()
        instance.wait_log(r"SSL_accept error from \S+: -1\n")
        instance.wait_log(r"warning: TLS library problem: error:0A00010B:SSL routines::wrong version number")
        with TlsClient(instance.port) as other:
            other.start_tls()
            message(other)
        assert silent.reply() == b""
        silent.close()
        instance.wait_log(r"SSL_accept error from \S+: Connection timed out\n")
        instance.wait_log(r"lost connection after STARTTLS from ", count=2)
        assert not [line for line in instance.unexpected() if "TLS library problem" not in line]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed_on_every_worker(settings: str, version: ssl.TLSVersion) -> None:
    services = MASTER_CF.replace("n - - smtpd", "n - 2 smtpd")  # two workers, each for one client
    with running(settings, services) as instance:
        context = client_context(version)
        with TlsClient(instance.port) as first:
            first.start_tls(context)
            session = first.secured.session
            assert not first.secured.session_reused
            with TlsClient(instance.port) as second:
                second.start_tls(context, session)
                assert second.secured.session_reused, "the other worker does not know the session"
                assert len(instance.pids("smtpd")) == 2
                first.ask(b"QUIT")
                second.ask(b"QUIT")
        with TlsClient(instance.port) as third:
            third.start_tls(context, session)
            assert third.secured.session_reused


def test_client_certificates(settings: str, authority: Authority) -> None:
    asking, demanding = free_port(), free_port()
    services = (
        f"127.0.0.1:{asking} inet n - n - - smtpd -o smtpd_tls_ask_ccert=yes\n"
        f"127.0.0.1:{demanding} inet n - n - - smtpd -o smtpd_tls_security_level=encrypt -o smtpd_tls_req_ccert=yes\n"
    )
    good = authority.issue("client.test.example")
    own = authority.issue("self signed", self_signed=True)
    with running(settings, MASTER_CF + services) as instance:
        for number, (certificate, words) in enumerate(
            (
                (good, '(Client CN "client.test.example", Issuer "Test CA" (verified OK))'),
                (own, '(Client CN "self signed", Issuer "self signed" (not verified))'),
                (None, "(Client did not present a certificate)"),
            )
        ):
            user = f"user{number}"
            with TlsClient(asking) as client:
                client.start_tls(client_context(pair=certificate))
                message(client, f"{user}@box.test".encode())
            wait_for(lambda user=user: instance.mailbox(user), what="mail")  # type: ignore[misc]
            assert words in instance.mailbox(user)[0].read_text()
        instance.wait_log("Trusted TLS connection established from")
        instance.wait_log("Untrusted TLS connection established from")
        with TlsClient(demanding) as client:
            client.start_tls(client_context(pair=good))
            message(client)
        for certificate, words in ((own, "Client certificate not trusted"), (None, "No client certificate presented")):
            with TlsClient(demanding) as client:
                client.reply()
                client.ask(b"EHLO x")
                client.ask(b"STARTTLS")
                client.secure(client_context(pair=certificate))
                assert client.ask(b"EHLO x") == f"421 4.7.1 mail.test.example Error: {words}\r\n".encode()
                assert client.reply() == b""
            instance.wait_log(rf"NOQUEUE: abort: TLS from \S+: {words}")
        assert not instance.unexpected()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a key that the service's user cannot read")
def test_the_key_is_read_before_privileges_are_dropped(settings: str, pair: Pair, authority: Authority) -> None:
    assert pair.key.stat().st_mode & 0o777 == 0o600
    assert pair.key.stat().st_uid == 0
    mine = authority.issue("client.test.example")
    jailed = MASTER_CF.replace("inet n - n", "inet n - y")
    with running(settings + "smtpd_tls_ask_ccert = yes\n", jailed) as instance:
        with TlsClient(instance.port) as client:
            client.start_tls(client_context(pair=mine))
            message(client)
        instance.wait_log("Trusted TLS connection established from")
        pid = instance.pids("smtpd")[0]
        assert f"\nUid:\t{instance.uid}\t" in Path(f"/proc/{pid}/status").read_text()
        assert os.readlink(f"/proc/{pid}/root") == str(instance.spool)
        assert not instance.unexpected()


def test_a_key_that_is_not_there_costs_tls_alone(settings: str) -> None:
    with running(settings + "smtpd_tls_key_file = /nonexistent/key\n") as instance:
        with Client(instance.port) as client:
            client.reply()
            assert b"STARTTLS" in client.ask(b"EHLO x")
            assert client.ask(b"STARTTLS") == b"454 4.7.0 TLS not available due to local problem\r\n"
            message(client)
        instance.wait_log('cannot get RSA private key from file "/nonexistent/key": No such file or directory')
        checked = instance.command("postfix", "check")
        assert 'TLS is not available: cannot get RSA private key from file "/nonexistent/key"' in checked.stderr


def test_openssl_reconnects_with_its_session(settings: str) -> None:
    with running(settings) as instance:
        command = ["openssl", "s_client", "-starttls", "smtp", "-connect", f"127.0.0.1:{instance.port}", "-reconnect", "-tls1_2"]
        result = subprocess.run(command, input=b"QUIT\r\n", capture_output=True, timeout=60, check=False)
        assert result.stdout.count(b"Reused, TLSv1.2") == 5, result.stdout[-2000:]
