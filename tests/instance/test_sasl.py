"""AUTH on a running system: every mechanism with our own passwords, saslauthd, Dovecot, a login at another server, and nothing of it in any
file that is written.
"""

from __future__ import annotations

import base64
import os
import shutil
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from estafeta.sasl.machines import client_machine
from estafeta.sasl.properties import MECHANISMS
from estafeta.sasl.vocabulary import Credentials, WantKey, encode
from support.instance import MASTER_CF, Client, Instance, running, wait_for
from support.ports import free_port
from support.sasl_servers import DOVECOT, SASLAUTHD, dovecot, saslauthd

PASSWORD = "correct horse battery"
SETTINGS = """\
smtpd_sasl_auth_enable = yes
smtpd_sasl_local_domain = $myhostname
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
smtpd_relay_restrictions =
smtpd_soft_error_limit = 100
smtpd_hard_error_limit = 200
"""


@pytest.fixture
def top() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sasl-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def login(client: Client, mechanism: str, user: str, password: str) -> bytes:
    """AUTH from its begin to its end; the last reply."""
    machine = client_machine(mechanism, Credentials(user, password.encode()), "mail.test.example")

    def say(data: Any) -> Any:
        answer = machine.send(data)
        while isinstance(answer, WantKey):
            answer = machine.send(answer.derive())
        return answer

    initial = say(None)
    reply = client.ask(b"AUTH " + mechanism.encode() + (b" " + encode(initial) if initial is not None else b""))
    while reply.startswith(b"334 "):
        reply = client.ask(encode(say(base64.b64decode(reply[4:].strip()))))
    return reply


def account(instance: Instance, user: str, password: str, *options: str) -> None:
    """saslpasswd2."""
    result = instance.command("saslpasswd2", "-p", "-c", *options, "-f", str(instance.etc / "sasldb2"), "-u", "mail.test.example", user,
                              input=password)  # fmt: skip
    assert result.returncode == 0, result.stderr


def configured(settings: str = "", conf: str = "", master_cf: str = MASTER_CF) -> Instance:
    """An instance with smtpd.conf, not started."""
    instance = Instance(SETTINGS + settings, master_cf)
    (instance.etc / "sasl").mkdir()
    instance.write("sasl/smtpd.conf", conf or f"pwcheck_method: sasldb\nsasldb_path: {instance.etc}/sasldb2\n")
    return instance


def finish(instance: Instance) -> None:
    instance.stop()
    instance.remove()


def test_every_mechanism_and_a_password_that_changes() -> None:
    instance = configured(master_cf=MASTER_CF.replace("smtp} inet n - n", "smtp} inet n - y"))
    try:
        account(instance, "joe", PASSWORD)
        account(instance, "ann", "other", "-n")
        assert (instance.etc / "sasldb2").stat().st_mode & 0o777 == 0o640
        instance.start()
        for mechanism in MECHANISMS:
            with Client(instance.port) as client:
                client.reply()
                assert f"250-AUTH {' '.join(MECHANISMS)}".encode() in client.ask(b"EHLO x")
                assert login(client, mechanism, "joe", PASSWORD + "x").startswith(b"535 5.7.8 ")
                assert client.ask(b"MAIL FROM:<joe@x.test>").startswith(b"250")
                assert client.ask(b"RCPT TO:<a@discard.test>").startswith(b"554")
                client.ask(b"RSET")
                assert login(client, mechanism, "joe", PASSWORD) == b"235 2.7.0 Authentication successful\r\n"
                assert client.ask(b"MAIL FROM:<joe@x.test>").startswith(b"250")
                assert client.ask(b"RCPT TO:<a@discard.test>").startswith(b"250")
                client.ask(b"QUIT")
            instance.wait_log(rf"(?m)client=.*, sasl_method={mechanism}, sasl_username=joe@mail\.test\.example$")
            instance.wait_log(rf"(?m)SASL {mechanism} authentication failed: .*, sasl_username=joe@mail\.test\.example$")
        for mechanism, code in (("PLAIN", b"235"), ("LOGIN", b"235"), ("SCRAM-SHA-1", b"235"), ("CRAM-MD5", b"535")):
            with Client(instance.port) as client:
                client.reply()
                assert login(client, mechanism, "ann", "other").startswith(code), mechanism
        account(instance, "joe", "changed")

        def is_known() -> bool:
            with Client(instance.port) as client:
                client.reply()
                return login(client, "CRAM-MD5", "joe", "changed").startswith(b"235")

        wait_for(is_known, what="the new password")
        assert not instance.unexpected()
    finally:
        finish(instance)


def test_without_accounts_the_answer_is_temporary() -> None:
    instance = configured()
    try:
        instance.start()
        with Client(instance.port) as client:
            client.reply()
            for mechanism in ("PLAIN", "CRAM-MD5"):
                assert login(client, mechanism, "joe", "x") == b"454 4.7.0 Temporary authentication failure: generic failure\r\n"
        instance.wait_log(r"open .*/sasldb2: No such file or directory")
        check = instance.command("postfix", "check")
        assert "warning: " in check.stderr
        assert "smtpd: no account can log in: open " in check.stderr
        account(instance, "joe", PASSWORD)

        def is_known() -> bool:
            with Client(instance.port) as client:
                client.reply()
                return login(client, "PLAIN", "joe", PASSWORD).startswith(b"235")

        wait_for(is_known, what="the new sasldb")
    finally:
        finish(instance)


def test_others_do_not_wait_and_lines_are_limited() -> None:
    instance = configured("smtpd_sasl_response_limit = 1000\n")
    try:
        account(instance, "joe", PASSWORD)
        instance.start()
        with Client(instance.port) as waiting, Client(instance.port) as other:
            waiting.reply()
            other.reply()
            assert waiting.ask(b"AUTH LOGIN").startswith(b"334")
            assert login(other, "PLAIN", "joe", PASSWORD).startswith(b"235")
            assert waiting.ask(b"x" * 200000) == b"500 5.5.6 SASL response limit exceeded\r\n"
            assert waiting.ask(b"NOOP").startswith(b"250")
            assert waiting.ask(b"AUTH LOGIN").startswith(b"334")
            assert waiting.ask(b"*") == b"501 5.7.0 Authentication aborted\r\n"
            assert waiting.ask(b"AUTH LOGIN").startswith(b"334")
        instance.wait_log("lost connection after AUTH from .*127.0.0.1")
        assert not instance.unexpected()
    finally:
        finish(instance)


def _outcomes(port: int, mechanism: str, tries: list[tuple[str, str]]) -> list[bytes]:
    replies = []
    for user, password in tries:
        with Client(port) as client:
            client.reply()
            client.ask(b"EHLO x")
            replies.append(login(client, mechanism, user, password)[:4])
    return replies


@pytest.mark.skipif(not os.path.exists(SASLAUTHD), reason="saslauthd is not installed")
def test_saslauthd(top: Path) -> None:
    instance = configured(conf=f"pwcheck_method: saslauthd\nsaslauthd_path: {top}/run/mux\n")
    tries = [("joe", PASSWORD.replace(" ", "-")), ("joe", "bad"), ("nobody", "x")]
    try:
        instance.start()
        assert _outcomes(instance.port, "PLAIN", tries) == [b"454 "] * 3
        instance.wait_log("cannot connect to saslauthd server: No such file or directory")
        with saslauthd(top / "run", {"joe": PASSWORD.replace(" ", "-")}):
            for mechanism in ("PLAIN", "LOGIN"):
                assert _outcomes(instance.port, mechanism, tries) == [b"235 ", b"535 ", b"535 "]
        with Client(instance.port) as client:
            client.reply()
            assert b"250-AUTH PLAIN LOGIN\r\n" in client.ask(b"EHLO x")
    finally:
        finish(instance)


@pytest.mark.skipif(not os.path.exists(DOVECOT) or os.geteuid() != 0, reason="Dovecot is not installed, or not root")
@pytest.mark.parametrize("kind", ["path", "inet"])
def test_dovecot(top: Path, kind: str) -> None:
    port = free_port()
    path = f"{top}/dovecot/sock/auth" if kind == "path" else f"inet:127.0.0.1:{port}"
    instance = configured(f"smtpd_sasl_type = dovecot\nsmtpd_sasl_path = {path}\n")
    tries = [("joe@mail.test.example", PASSWORD), ("joe@mail.test.example", "bad"), ("nobody", "x")]
    mechanisms = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256")
    try:
        instance.start()
        assert _outcomes(instance.port, "PLAIN", tries) == [b"454 "] * 3
        instance.wait_log("Connect to Dovecot auth socket '.*' failed: ")
        for number in range(2):  # the second one shows that a lost connection is made anew
            with dovecot(top / "dovecot", {"joe@mail.test.example": PASSWORD}, port):
                for mechanism in mechanisms if not number else ("PLAIN",):
                    assert _outcomes(instance.port, mechanism, tries) == [b"235 ", b"535 ", b"535 "], mechanism
                with Client(instance.port) as client:
                    client.reply()
                    assert b"250-AUTH PLAIN LOGIN CRAM-MD5 DIGEST-MD5 SCRAM-SHA-256\r\n" in client.ask(b"EHLO x")
                    assert client.ask(b"AUTH LOGIN").startswith(b"334")
                    assert client.ask(b"*").startswith(b"501 5.7.0")
                    assert login(client, "PLAIN", "joe@mail.test.example", PASSWORD).startswith(b"235")
            shutil.rmtree(top / "dovecot")
        instance.wait_log("SASL LOGIN authentication failed: \\(reason unavailable\\), sasl_username=joe@mail.test.example")
        assert not instance.unexpected()
    finally:
        finish(instance)


def _forms(secret: str) -> list[bytes]:
    """A secret in clear, and the middle of it in the three ways in which base64 may show it."""
    data = secret.encode()
    forms = [data]
    for lead in range(3):
        text = base64.b64encode(b"\0" * lead + data)
        forms.append(text[4 if lead else 0 : len(text) - 4])
    return forms


def test_no_secret_is_written_anywhere(top: Path) -> None:
    """Right and wrong passwords, failed, aborted and pipelined logins, protocol errors; and our client's password, taken and refused."""
    wrong = "WrongPasswordThatNobodyMaySee"
    right = "RightPasswordThatNobodyMaySee"
    out = "OutgoingPasswordThatNobodyMaySee"
    server = configured("smtpd_forbidden_commands = CONNECT GET POST regexp:{{/^[^A-Z]/ Bogus}}\nsmtpd_tls_loglevel = 2\n")
    client = Instance(
        "smtp_sasl_auth_enable = yes\nsmtp_sasl_security_options = noanonymous\n"
        f"smtp_sasl_password_maps = inline:{{ {{ [127.0.0.1]:{server.port} = joe:{out} }} }}\n"
        f"transport_maps = inline:{{ {{ discard.test = smtp:[127.0.0.1]:{server.port} }} {{ bad.test = bad:[127.0.0.1]:{server.port} }} }}\n"
        "maximal_queue_lifetime = 0\n",
        MASTER_CF + f"bad unix - - n - - smtp -v -o {{ smtp_sasl_password_maps = static:joe:{wrong} }} -o smtp_sasl_auth_soft_bounce=no\n"
        f"badplain unix - - n - - smtp -o {{ smtp_sasl_password_maps = static:joe:{wrong} }} -o smtp_sasl_mechanism_filter=plain\n",
    )
    try:
        account(server, "joe", right)
        account(server, "out", out)
        server.start()
        plain = encode(b"\0joe\0" + wrong.encode())
        user, password = encode(b"joe"), encode(wrong.encode())
        conversations: list[list[bytes]] = [
            [b"EHLO x", b"AUTH PLAIN " + plain, b"AUTH PLAIN " + plain + b"\r\nNOOP", b"AUTH PLAIN\r\n" + plain + b"\r\nNOOP"],
            [b"AUTH PLAIN\r\n" + plain + b"\r\nNOOP"],
            [b"EHLO x\r\nAUTH PLAIN " + plain + b"\r\nNOOP"],
            [b"HELO x\r\nAUTH LOGIN\r\n" + user + b"\r\n" + password + b"\r\n" + password],
            [b"EHLO x", b"AUTH FOO\r\n" + password + b"\r\n" + password],
            [b"EHLO x", b"AUTH LOGIN", user, b"*", password],
            [b"EHLO x", b"AUTH LOGIN " + user, password + b"=", password],
            [b"EHLO x", b"AUTH PLAIN " + plain * 80, plain * 80],
            [b"EHLO x", b"AUTH PLAIN", wrong.encode(), b"AUTH " + plain, b"AUTH", wrong.encode()],
            [b"EHLO x", b"AUTH PLAIN " + encode(b"\0joe\0" + right.encode()), b"AUTH PLAIN " + plain, b"MAIL FROM:<a@b.c>"],
            [b"EHLO x", b"AUTH LOGIN", user, encode(right.encode()), b"MAIL FROM:<a@b.c>", b"RCPT TO:<x@discard.test>"],
        ]
        for conversation in conversations:
            with Client(server.port) as talk:
                talk.reply()
                for line in conversation:
                    talk.ask(line)
        server.stop()
        server.start()
        client.start()
        for recipient in ("a@discard.test", "b@bad.test"):
            with Client(client.port) as talk:
                talk.reply()
                for line in (b"EHLO x", b"MAIL FROM:<user@box.test>", b"RCPT TO:<" + recipient.encode() + b">", b"DATA"):
                    talk.ask(line)
                assert talk.ask(b"Subject: x\r\n\r\nbody\r\n.").startswith(b"250")
        client.wait_log(r"to=<b@bad.test>, .*SASL authentication failed; server .* said: 535 5\.7\.8")
        client.wait_log("to=<a@discard.test>, ")
        client.wait_log("to=<user@box.test>, .*status=sent")
        client.stop()
        server.stop()
        for instance in (server, client):
            assert not instance.unexpected()
            for path in instance.directory.rglob("*"):
                if not path.is_file() or path.name in ("sasldb2", "main.cf", "master.cf"):
                    continue
                for line in path.read_bytes().splitlines():
                    found = [form for secret in (wrong, right, out) for form in _forms(secret) if form in line]
                    assert not found, f"{path}: {line[:300]!r}"
    finally:
        finish(server)
        finish(client)


def test_a_login_is_not_shared() -> None:
    """Two senders with logins of their own, and a server that is not listed: who hears what."""
    server = configured()
    try:
        for user in ("one", "two"):
            account(server, user, PASSWORD)
        server.start()
        maps = f"inline:{{ {{ one@x.test = one:{PASSWORD} }} {{ two@x.test = two:{PASSWORD} }} }}"
        settings = (
            f"smtp_sasl_auth_enable = yes\nsmtp_sender_dependent_authentication = yes\nsmtp_sasl_password_maps = {maps}\n"
            f"transport_maps = inline:{{ {{ discard.test = smtp:[127.0.0.1]:{server.port} }} }}\nsmtp_connection_cache_destinations = static:all\n"
        )
        with running(settings) as client:
            for sender in ("one", "two", "one", "three"):
                with Client(client.port) as talk:
                    talk.reply()
                    for line in (b"EHLO x", f"MAIL FROM:<{sender}@x.test>".encode(), b"RCPT TO:<a@discard.test>", b"DATA"):
                        talk.ask(line)
                    assert talk.ask(b"Subject: x\r\n\r\nbody\r\n.").startswith(b"250")
            client.wait_log("to=<a@discard.test>, .*status=sent", count=3)
            client.wait_log("to=<a@discard.test>, .*554 5.7.1")
        log = server.log()
        assert log.count("sasl_username=one@") == 2
        assert log.count("sasl_username=two@") == 1
    finally:
        finish(server)


class _Lmtp(socketserver.StreamRequestHandler):
    """An LMTP server that wants a login."""

    def handle(self) -> None:
        said: list[bytes] = self.server.said  # type: ignore[attr-defined]
        self.wfile.write(b"220 sink LMTP\r\n")
        for line in self.rfile:
            said.append(line.strip())
            verb = line.split()[0].upper()
            if verb == b"LHLO":
                self.wfile.write(b"250-sink\r\n250 AUTH PLAIN LOGIN\r\n")
            elif verb == b"AUTH":
                self.wfile.write(b"235 2.7.0 ok\r\n")
            elif verb == b"DATA":
                self.wfile.write(b"354 go\r\n")
                while self.rfile.readline() != b".\r\n":
                    pass
                self.wfile.write(b"250 2.0.0 taken\r\n")
            else:
                self.wfile.write(b"250 2.0.0 ok\r\n")


def test_lmtp_has_its_own_parameters() -> None:
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Lmtp)
    server.daemon_threads = True
    said: list[bytes] = []
    server.said = said  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    settings = (
        f"transport_maps = inline:{{ {{ discard.test = lmtp:inet:127.0.0.1:{port} }} }}\nsmtp_sasl_auth_enable = no\n"
        "lmtp_sasl_auth_enable = yes\nlmtp_sasl_security_options = noanonymous\nlmtp_sasl_mechanism_filter = !login, static:all\n"
        "lmtp_sasl_password_maps = inline:{ { 127.0.0.1 = joe:secret } }\nlmtp_send_dummy_mail_auth = yes\n"
    )
    try:
        with running(settings) as instance:
            with Client(instance.port) as talk:
                talk.reply()
                for line in (b"EHLO x", b"MAIL FROM:<a@x.test>", b"RCPT TO:<a@discard.test>", b"DATA"):
                    talk.ask(line)
                assert talk.ask(b"Subject: x\r\n\r\nbody\r\n.").startswith(b"250")
            instance.wait_log("to=<a@discard.test>, .*status=sent")
        assert b"AUTH PLAIN " + encode(b"\0joe\0secret") in said
        assert b"MAIL FROM:<a@x.test> AUTH=<>" in said
    finally:
        server.shutdown()
        server.server_close()
