"""smtp with TLS, against our own smtpd on other ports: levels, policies, private authorities, client certificates, resumption."""

from __future__ import annotations

import os
import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.certificates import Authority, Pair
from support.instance import MASTER_CF, Client, Instance, running, wait_for
from support.ports import free_port
from support.tls_client import message

SERVERS = """\
127.0.0.1:{tls} inet n - n - - smtpd -o syslog_name=far
127.0.0.1:{clear} inet n - n - - smtpd -o syslog_name=far -o smtpd_tls_security_level=none
127.0.0.1:{wrapped} inet n - n - - smtpd -o syslog_name=far -o smtpd_tls_wrappermode=yes
127.0.0.1:{broken} inet n - n - - smtpd -o syslog_name=far -o smtpd_tls_key_file=/nonexistent
127.0.0.1:{asking} inet n - n - - smtpd -o syslog_name=far -o smtpd_tls_ask_ccert=yes
"""
SETTINGS = """
smtpd_tls_cert_file = {pair.certificate}
smtpd_tls_key_file = {pair.key}
smtpd_tls_CAfile = {authority.certificate}
smtpd_tls_security_level = may
smtpd_tls_received_header = yes
smtpd_tls_loglevel = 1
smtp_tls_loglevel = 1
smtp_tls_CAfile = {authority.certificate}
smtp_tls_fingerprint_digest = sha256
disable_dns_lookups = yes
"""
FAR = "default_transport = discard:\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    directory = tmp_path_factory.mktemp("ca")
    for parent in (directory, *directory.parents[:3]):
        if os.stat(parent).st_uid == os.geteuid() and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    return Authority(directory)


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("mail.test.example", "mail.test.example", "*.wild.example")


class _Garbage(socketserver.StreamRequestHandler):
    """Offers STARTTLS and breaks it; takes mail in clear."""

    def handle(self) -> None:
        self.wfile.write(b"220 x ESMTP\r\n")
        for line in self.rfile:
            verb = line[:4].upper()
            if verb == b"EHLO":
                self.wfile.write(b"250-x\r\n250 STARTTLS\r\n")
            elif verb == b"STAR":
                self.wfile.write(b"220 go\r\n" + b"garbage\r\n" * 20)
                return
            elif verb == b"DATA":
                self.wfile.write(b"354 go\r\n")
                while self.rfile.readline() not in (b".\r\n", b""):
                    pass
                self.wfile.write(b"250 2.0.0 taken in clear\r\n")
            elif verb == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            else:
                self.wfile.write(b"250 2.0.0 ok\r\n")


@pytest.fixture
def garbage_port() -> Iterator[int]:
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Garbage, bind_and_activate=False)
    server.daemon_threads = True
    server.allow_reuse_address = True
    server.server_bind()
    server.server_activate()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def _send(instance: Instance, domain: str) -> str:
    """One message to ``domain``; its line in the log."""
    with Client(instance.port) as client:
        client.reply()
        client.ask(b"EHLO x")
        message(client, f"u@{domain}".encode())
    return instance.wait_log(rf"to=<u@{re.escape(domain)}>, .*status=.*")[0]


def _transports(ports: dict[str, int], policies: dict[str, tuple[str, str]], extra: dict[str, str] | None = None) -> tuple[str, str]:
    """main.cf and master.cf lines: each domain has a transport of its own with its policy and options."""
    services, routes = "", ""
    for name, (port, policy) in policies.items():
        nexthop = f"[127.0.0.1]:{ports[port]}"
        options = (extra or {}).get(name, "")
        table = f"-o {{ smtp_tls_policy_maps = inline:{{ {{ {nexthop} = {policy} }} }} }}" if policy else ""
        services += f"{name} unix - - n - - smtp {table} {options}\n"
        routes += f" {{ {name}.test = {name}:{nexthop} }}"
    return f"transport_maps = inline:{{{routes} {{ discard.test = discard: }} }}\n", services


def _ports() -> dict[str, int]:
    return {name: free_port() for name in ("tls", "clear", "wrapped", "broken", "asking")}


def test_policies(authority: Authority, pair: Pair) -> None:
    ports = _ports()
    policies = {
        "tmay": ("tls", "may"),
        "tmayclear": ("clear", "may"),
        "tenc": ("tls", "encrypt protocols=TLSv1.2"),
        "tencclear": ("clear", "encrypt"),
        "tencbroken": ("broken", "encrypt"),
        "tmaybroken": ("broken", "may"),
        "tfp": ("tls", f"fingerprint match=AA|{pair.fingerprint}"),
        "tpk": ("tls", f"fingerprint match={pair.pubkey_fingerprint.replace(':', '').lower()}"),
        "tfpbad": ("tls", "fingerprint match=AA"),
        "tsec": ("tls", "secure match=mail.test.example"),
        "twild": ("tls", "secure match=a.wild.example"),
        "tdot": ("tls", "secure match=.test.example"),
        "tsecbad": ("tls", "secure match=other.example"),
        "tverify": ("tls", "verify"),
        "tnone": ("tls", "none"),
        "tbogus": ("tls", "bogus"),
        "tdane": ("tls", "dane-only"),
    }
    routes, services = _transports(ports, policies)
    settings = SETTINGS.format(pair=pair, authority=authority)
    with running(settings + FAR, MASTER_CF + SERVERS.format(**ports)), running(settings + routes, MASTER_CF + services) as instance:
        expected = {
            "tmay": r"Trusted TLS connection established to \S+: TLSv1.3",
            "tmayclear": "",
            "tenc": r"Anonymous TLS connection established to \S+: TLSv1.2",
            "tencclear": r"dsn=4\.7\.4, status=deferred \(TLS is required, but was not offered by host 127",
            "tencbroken": r"dsn=4\.7\.0, status=deferred \(TLS is required, but host \S+ refused to start TLS: 454 4\.7\.0 TLS not",
            "tmaybroken": "",
            "tfp": "Verified TLS connection established to",
            "tpk": "Verified TLS connection established to",
            "tfpbad": r"dsn=4\.7\.5, status=deferred \(Server certificate not verified\)",
            "tsec": "Verified TLS connection established to",
            "twild": "Verified TLS connection established to",
            "tdot": "Verified TLS connection established to",
            "tsecbad": r"num=62:hostname mismatch",
            "tverify": r"num=64:IP address mismatch",
            "tnone": "",
            "tbogus": r"dsn=4\.7\.5, status=deferred \(client TLS configuration problem\)",
            "tdane": r"dsn=4\.7\.5, status=deferred \(client TLS configuration problem\)",
        }
        for name, pattern in expected.items():
            before = len(instance.log())
            line = _send_once(instance, name)
            part = instance.log()[before:]
            if pattern:
                assert re.search(pattern, part), f"{name}: {part}"
            if not pattern or "established" in pattern:
                assert "status=sent" in line, f"{name}: {part}"
            if name in ("tmayclear", "tmaybroken", "tnone"):
                assert "connection established to" not in part, part
        assert not instance.unexpected()


def _send_once(instance: Instance, name: str) -> str:
    result = instance.command("sendmail", "-f", "a@test.example", f"u@{name}.test", input="Subject: x\n\nx\n")
    assert result.returncode == 0, result.stderr
    return instance.wait_log(rf"{name}/smtp\S* \w+: to=<u@{name}\.test>, .*status=.*|postfix/smtp\S* \w+: to=<u@{name}\.test>, .*")[0]


def test_wrapper_mode_certificate_and_resumption(authority: Authority, pair: Pair) -> None:
    ports = _ports()
    mine = authority.issue("client.test.example")
    policies = {"twrap": ("wrapped", "encrypt"), "tcert": ("asking", "encrypt"), "tagain": ("tls", "encrypt")}
    options = {
        "twrap": "-o smtp_tls_wrappermode=yes",
        "tcert": f"-o smtp_tls_cert_file={mine.certificate} -o smtp_tls_key_file={mine.key}",
        "tagain": "-o smtp_tls_session_cache_database=btree:x -o smtp_connection_cache_on_demand=no",
    }
    routes, services = _transports(ports, policies, options)
    settings = SETTINGS.format(pair=pair, authority=authority) + "smtpd_tls_loglevel = 2\n"
    far_services = MASTER_CF + SERVERS.format(**ports)
    with running(settings + FAR, far_services) as far, running(settings + routes, MASTER_CF + services) as instance:
        for name in ("twrap", "tcert"):
            assert "status=sent" in _send_once(instance, name)
        far.wait_log(r"far/smtpd\S+ Trusted TLS connection established from .* client-signature ECDSA \(prime256v1\)")
        for _ in range(3):
            before = instance.log().count("u@tagain.test>, relay")
            _send_once(instance, "tagain")
            wait_for(lambda before=before: instance.log().count("u@tagain.test>, relay") > before, what="sent")  # type: ignore[misc]
        far.wait_log(r"far/smtpd\S+ \S+: Reusing old session \(RFC 5077 session ticket\)", count=2)


def test_opportunistic_tls_that_fails_is_tried_in_clear_later(authority: Authority, pair: Pair, garbage_port: int) -> None:
    settings = SETTINGS.format(pair=pair, authority=authority)
    settings += f"smtp_tls_security_level = may\ntransport_maps = inline:{{ {{ g.test = smtp:[127.0.0.1]:{garbage_port} }} }}\n"
    with running(settings) as instance:
        first = _send(instance, "g.test")
        assert "dsn=4.7.5, status=deferred (Cannot start TLS: handshake failure)" in first
        instance.wait_log(r"SSL_connect error to 127\.0\.0\.1\[127\.0\.0\.1\]:\d+: (-1|lost connection)\n")
        instance.wait_log(r"to=<u@g\.test>, .*status=sent \(250 2\.0\.0 taken in clear\)")
        wait_for(instance.queue_is_empty, what="empty queue")


def test_a_server_that_falls_silent_in_the_handshake(authority: Authority, pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            link, _ = server.accept()
            with link:
                link.sendall(b"220 x ESMTP\r\n")
                link.recv(1000)
                link.sendall(b"250-x\r\n250 STARTTLS\r\n")
                link.recv(1000)
                link.sendall(b"220 go\r\n")
                while link.recv(1000):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        settings = SETTINGS.format(pair=pair, authority=authority)
        settings += "smtp_tls_security_level = encrypt\nsmtp_starttls_timeout = 1s\n"
        settings += f"transport_maps = inline:{{ {{ g.test = smtp:[127.0.0.1]:{port} }} }}\nminimal_backoff_time = 1000s\n"
        with running(settings) as instance:
            assert "Cannot start TLS: handshake failure" in _send(instance, "g.test")
            instance.wait_log(r"SSL_connect error to \S+: Connection timed out\n")
            thread.join(10)
            assert not thread.is_alive()


def test_large_mail_and_kept_connections(authority: Authority, pair: Pair) -> None:
    ports = _ports()
    options = {"tkept": "-o smtp_tls_connection_reuse=yes -o smtp_connection_cache_destinations=static:x"}
    routes, services = _transports(ports, {"tkept": ("tls", "encrypt")}, options)
    routes += "tkept_destination_concurrency_limit = 1\n"
    settings = SETTINGS.format(pair=pair, authority=authority)
    far_services = MASTER_CF + SERVERS.format(**ports)
    with running(settings + FAR, far_services) as far, running(settings + routes, MASTER_CF + services) as instance:
        with Client(instance.port) as client:
            client.reply()
            client.ask(b"EHLO x")
            for size in (1000, 3_000_000, 1000):
                content = b"Subject: x\r\n\r\n" + (b"z" * 70 + b"\r\n") * (size // 72)
                assert client.send(b"a@test.example", [b"u@tkept.test"], content).startswith(b"250")
        instance.wait_log(r"to=<u@tkept\.test>, .*status=sent", count=3)
        instance.wait_log(r"to=<u@tkept\.test>, .*conn_use=2")
        far.wait_log(r"from=<a@test\.example>, size=[23]\d{6}")
        assert not far.unexpected() + instance.unexpected()
