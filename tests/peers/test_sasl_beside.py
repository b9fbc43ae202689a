"""SASL on Debian's Postfix (Cyrus, Dovecot) and on Estafeta with the same main.cf: replies, log lines, swaks, and logins at each other."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "support"))

import peers  # noqa: E402
from support.certificates import Authority  # noqa: E402
from support.instance import Client  # noqa: E402
from support.ports import free_port, free_ports  # noqa: E402
from support.sasl_servers import DOVECOT, dovecot  # noqa: E402
from support.tls_client import TlsClient, client_context  # noqa: E402

pytestmark = [
    pytest.mark.skipif(peers.missing() is not None, reason=peers.missing() or ""),
    pytest.mark.skipif(not os.path.exists("/usr/sbin/saslpasswd2"), reason="sasl2-bin is not installed"),
    pytest.mark.xdist_group("peers"),
]

MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-256", "SCRAM-SHA-1")
# Chapter 5 of the tutorial: 5.2 and 5.3 (AUTH on one port only), 5.4.
MAIN_CF = """\
myhostname = mail.here.test
mydomain = here.test
mydestination =
mynetworks = 127.0.0.3
inet_interfaces = 127.0.0.1
alias_maps =
alias_database =
disable_dns_lookups = yes
smtp_host_lookup = native
smtpd_peername_lookup = no
smtpd_soft_error_limit = 100
smtpd_hard_error_limit = 200
cyrus_sasl_config_path = {etc}/sasl
broken_sasl_auth_clients    = yes
smtpd_sasl_local_domain     = $mydomain
#smtpd_sasl_auth_enable     = yes
smtpd_relay_restrictions =
smtpd_tls_security_level = may
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
virtual_mailbox_domains = box.test
virtual_mailbox_maps = static:user/
virtual_mailbox_base = {top}/mail
virtual_minimum_uid = 1
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
smtpd_recipient_restrictions =
    permit_mynetworks
    permit_sasl_authenticated
    reject_unauth_destination
smtp_sasl_password_maps = hash:{etc}/auth_passwd
smtp_sasl_auth_enable = yes
smtp_sasl_security_options = noanonymous
transport_maps = inline:{ {routes} { discard.test = discard: } }
"""
ENABLED = "-o smtpd_sasl_auth_enable=yes"
MASTER_CF = f"""\
127.0.0.1:{{smtp}} inet n - n - - smtpd
127.0.0.1:{{auth}} inet n - n - - smtpd {ENABLED}
127.0.0.1:{{secure}} inet n - n - - smtpd {ENABLED} -o smtpd_sasl_security_options=noplaintext,noanonymous
127.0.0.1:{{except}} inet n - n - - smtpd {ENABLED} -o smtpd_sasl_exceptions_networks=127.0.0.0/8
127.0.0.1:{{filter}} inet n - n - - smtpd {ENABLED} -o smtpd_sasl_mechanism_filter=!plain,static:rest
127.0.0.1:{{tlsonly}} inet n - n - - smtpd {ENABLED} -o smtpd_tls_auth_only=yes
127.0.0.1:{{rate}} inet n - n - - smtpd {ENABLED} -o smtpd_client_auth_rate_limit=2
127.0.0.1:{{header}} inet n - n - - smtpd {ENABLED} -o smtpd_sasl_authenticated_header=yes -o smtpd_tls_received_header=yes
127.0.0.1:{{noheader}} inet n - n - - smtpd {ENABLED}
tlsmgr unix - - n 1000? 1 tlsmgr
127.0.0.1:{{nomux}} inet n - n - - smtpd {ENABLED} -o smtpd_sasl_path=nomux
127.0.0.1:{{dovecot}} inet n - n - - smtpd {ENABLED} -o smtpd_sasl_type=dovecot -o smtpd_sasl_path={{socket}}
""" + "".join(f"127.0.0.1:{{{m}}} inet n - n - - smtpd {ENABLED} -o smtpd_sasl_path={m} -o content_filter=discard:\n" for m in MECHANISMS)
PORTS = ("smtp", "auth", "secure", "except", "filter", "tlsonly", "rate", "header", "noheader", "nomux", "dovecot", *MECHANISMS)
PASSWORD = "secret,=word"


class Scene:
    """Both systems and their ports; a Dovecot for both."""

    def __init__(self, top: Path, mux: str) -> None:
        pair = Authority(top / "ca").issue("mail.here.test", "mail.here.test", rsa_key=True)
        numbers = iter(free_ports(2 * len(PORTS)))
        self.ports = {name: {port: next(numbers) for port in PORTS} for name in peers.NAMES}
        self.systems = {}
        for name, other in zip(peers.NAMES, reversed(peers.NAMES), strict=True):
            routes = passwords = ""
            for mechanism in MECHANISMS:
                port = self.ports[other][mechanism]
                routes += f"{{ {mechanism.lower()}.test = smtp:[127.0.0.1]:{port} }} "
                passwords += f"[127.0.0.1]:{port} user:{PASSWORD}\n"
            port = self.ports[other]["SCRAM-SHA-1"]
            routes += f"{{ unlisted.test = smtp:[127.0.0.2]:{port} }} {{ bad.test = smtp:[127.0.0.1]:{self.ports[other]['auth']} }} "
            passwords += f"[127.0.0.1]:{self.ports[other]['auth']} user:wrong\n"
            values = {**self.ports[name], "routes": routes, "socket": mux, "certificate": pair.certificate, "key": pair.key}
            master = re.sub(r"\{([A-Z0-9-]+)\}", lambda match, name=name: str(self.ports[name][match[1]]), MASTER_CF)
            system = peers.Peer(name, top / name, MAIN_CF, master, values=values, files={"auth_passwd": passwords})
            self.systems[name] = system
            database = system.top / "sasldb2"
            (system.etc / "sasl").mkdir()
            for file, text in {
                "smtpd": f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: {' '.join(MECHANISMS[:5])}\n",
                "nomux": f"pwcheck_method: saslauthd\nsaslauthd_path: {top}/nomux\nmech_list: PLAIN LOGIN\n",
                **{m: f"pwcheck_method: auxprop\nmech_list: {m}\n" for m in MECHANISMS},
            }.items():
                system.write(f"sasl/{file}.conf", f"{text}sasldb_path: {database}\n")
            result = system.command("saslpasswd2", "-p", "-c", "-f", str(database), "-u", "here.test", "user", input_bytes=PASSWORD.encode())
            assert result.returncode == 0, result.stderr
            listed = system.command("sasldblistusers2", "-f", str(database)).stdout
            assert listed == b"user@here.test: userPassword\n"
            shutil.chown(database, "postfix")
            assert system.command("postmap", f"hash:{system.etc}/auth_passwd").returncode == 0


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    top = Path(tempfile.mkdtemp(prefix="sasl-beside-"))
    top.chmod(0o755)
    try:
        if not os.path.exists(DOVECOT):
            pytest.skip("Dovecot is not installed")
        with dovecot(top / "dovecot", {"user": PASSWORD}, free_port()) as mux:
            scene = Scene(top, mux)
            try:
                for system in scene.systems.values():
                    system.start()
                yield scene
            finally:
                for system in scene.systems.values():
                    system.stop()
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _b(text: str) -> bytes:
    return base64.b64encode(text.encode())


def _same(text: bytes) -> bytes:
    """A reply without the server's random numbers."""
    return b"334 CHALLENGE" if text.startswith(b"334 ") and len(text) > 24 else text


def _talk(scene: Scene, name: str, port: str, lines: list[bytes]) -> list[bytes]:
    with Client(scene.ports[name][port]) as client:
        return [_same(reply) for reply in (client.reply(), *(client.ask(line) for line in lines))]


def _said(scene: Scene, name: str, since: int) -> list[str]:
    found = []
    for line in scene.systems[name].log()[since:].splitlines():
        match = re.search(r"/smtpd\[\d+\]: (.*)", line)
        if match and re.search(r"SASL|sasl_|lost connection|^disconnect", match[1]):
            found.append(peers.normal(match[1]))
    return found


GOOD = _b(f"\0user\0{PASSWORD}")
BAD = _b("\0user\0bad")
IN_ONE_SESSION = [
    b"AUTH PLAIN " + BAD, b"HELO x", b"AUTH PLAIN " + BAD, b"EHLO x", b"AUTH", b"AUTH PLAIN " + _b("\0nobody\0bad"), b"AUTH PLAIN !!!",
    b"AUTH PLAIN =", b"AUTH PLAIN " + _b("x"), b"AUTH PLAIN " + _b("\0\0"), b"AUTH PLAIN " + _b(f"other\0user\0{PASSWORD}"), b"AUTH FOO",
    b"AUTH FOO BAR BAZ", b"AUTH PLAIN a b", b"AUTH CRAM-MD5 " + _b("x"), b"AUTH LOGIN x", b"AUTH EXTERNAL =", b"AUTH ANONYMOUS " + _b("x"),
    b"AUTH SCRAM-SHA-256 " + _b("x"), b"AUTH PLAIN", b"", b"AUTH PLAIN", b"*", b"AUTH PLAIN", b"@@@", b"AUTH LOGIN", _b("user"), _b("bad"),
    b"AUTH LOGIN " + _b("user"), _b("bad"), b"AUTH LOGIN", _b("user"), b"", b"AUTH CRAM-MD5", _b("user 012"), b"AUTH CRAM-MD5", _b("junk"),
    b"AUTH DIGEST-MD5", _b("junk"), b"AUTH DIGEST-MD5", b"", b"AUTH DIGEST-MD5", b"*", b"AUTH SCRAM-SHA-256 " + _b("n,,n=user,r=abc"),
    _b("c=biws,r=abc,p=xx"), b"AUTH SCRAM-SHA-256 " + _b("n,,n=nobody,r=abc"), b"MAIL FROM:<a@b.c>", b"AUTH PLAIN " + GOOD, b"RSET",
    b"MAIL FROM:<a@b.c> AUTH=<>", b"RCPT TO:<x@discard.test>", b"RSET", b"MAIL FROM:<a@b.c> AUTH=foo", b"RSET", b"AUTH PLAIN " + GOOD,
    b"AUTH PLAIN " + GOOD, b"EHLO x", b"MAIL FROM:<a@b.c> AUTH=foo+40bar", b"RCPT TO:<x@discard.test>", b"RSET",
    b"MAIL FROM:<a@b.c> AUTH=", b"RSET", b"MAIL FROM:<a@b.c> AUTH=x AUTH=y", b"RSET", b"MAIL FROM:<a@b.c> AUTH", b"RSET", b"MAIL FROM:<a@b.c> AUTH=<>",
    b"RCPT TO:<x@discard.test>", b"RSET", b"MAIL FROM:<a@b.c>", b"RCPT TO:<x@discard.test>", b"QUIT",
]  # fmt: skip


def test_one_session(scene: Scene) -> None:
    """Everything that can go wrong, then what goes right: the same replies and the same log lines."""
    replies, lines = {}, {}
    for name, system in scene.systems.items():
        start = len(system.log())
        replies[name] = _talk(scene, name, "auth", IN_ONE_SESSION)
        system.wait_log("disconnect from .* auth=", count=1)
        lines[name] = _said(scene, name, start)
    assert list(zip(IN_ONE_SESSION, replies["estafeta"][1:], strict=True)) == list(
        zip(IN_ONE_SESSION, replies["postfix"][1:], strict=True)
    )
    assert lines["estafeta"] == lines["postfix"]


@pytest.mark.parametrize("port", ["smtp", "auth", "secure", "except", "filter", "tlsonly", "nomux", "dovecot"])
def test_what_is_offered_and_taken(scene: Scene, port: str) -> None:
    """5.3: no AUTH on the one port, AUTH on the other; and the parameters that say what is offered."""
    talks = [
        [b"EHLO x", b"AUTH PLAIN " + GOOD, b"MAIL FROM:<a@b.c>", b"RCPT TO:<x@far.test>", b"QUIT"],
        [b"EHLO x", b"AUTH PLAIN " + BAD, b"AUTH FOO", b"MAIL FROM:<a@b.c>", b"RCPT TO:<x@far.test>", b"QUIT"],
        [b"EHLO x", b"MAIL FROM:<a@b.c> AUTH=<>", b"QUIT"],
    ]
    for talk in talks:
        replies = {name: _talk(scene, name, port, talk) for name in peers.NAMES}
        assert replies["estafeta"] == replies["postfix"]


def test_dovecot(scene: Scene) -> None:
    lines = [
        b"AUTH", b"AUTH FOO", b"AUTH PLAIN !!!", b"AUTH PLAIN " + BAD, b"AUTH LOGIN", _b("user"), _b("bad"), b"AUTH LOGIN", b"*",
        b"AUTH CRAM-MD5", _b("user 012"), b"AUTH LOGIN", _b("user"), _b(PASSWORD), b"MAIL FROM:<a@b.c>", b"RCPT TO:<x@discard.test>", b"QUIT",
    ]  # fmt: skip
    replies, said = {}, {}
    for name, system in scene.systems.items():
        start = len(system.log())
        replies[name] = _talk(scene, name, "dovecot", [b"EHLO x", *lines])
        peers.wait_until(lambda start=start, name=name: any("disconnect" in line for line in _said(scene, name, start)), 10, "disconnect")
        said[name] = _said(scene, name, start)
    assert replies["estafeta"] == replies["postfix"]
    assert said["estafeta"] == said["postfix"]


def test_how_often(scene: Scene) -> None:
    """smtpd_client_auth_rate_limit, counted by anvil."""
    talk = [b"EHLO x", b"AUTH PLAIN " + BAD, b"AUTH", b"AUTH PLAIN " + BAD, b"AUTH PLAIN " + BAD, b"AUTH PLAIN " + GOOD, b"QUIT"]
    replies = {name: _talk(scene, name, "rate", talk) for name in peers.NAMES}
    assert replies["estafeta"] == replies["postfix"]
    assert b"450 4.7.1 Error: too many AUTH commands from 127.0.0.1\r\n" in replies["estafeta"]


def test_received_headers_and_tls(scene: Scene) -> None:
    """AUTH before STARTTLS does not count; what the Received header says with and without TLS."""
    envelope = [b"MAIL FROM:<a@b.c>", b"RCPT TO:<user@box.test>", b"DATA", b"Subject: x\r\n\r\nbody\r\n.", b"QUIT"]
    replies, headers = {}, {}
    for name, system in scene.systems.items():
        said = []
        for port in ("header", "noheader"):
            said += _talk(scene, name, port, [b"EHLO x", b"AUTH PLAIN " + GOOD, *envelope])
            with TlsClient(scene.ports[name][port]) as client:
                said += [client.reply(), *(client.ask(line) for line in (b"EHLO x", b"AUTH PLAIN " + GOOD, b"STARTTLS"))]
                client.secure(client_context())
                said.append(client.ask(b"EHLO x"))
                said += [client.ask(line) for line in (b"MAIL FROM:<a@b.c> AUTH=<>", b"RSET", b"AUTH PLAIN " + GOOD, *envelope)]
        replies[name] = [peers.normal(reply.decode()) for reply in said]
        folder = system.mail / "user" / "new"
        peers.wait_until(lambda folder=folder: folder.is_dir() and len(list(folder.iterdir())) == 4, 15, "four messages")
        texts = [path.read_text().partition("Received: ")[2].partition("\nSubject")[0] for path in folder.iterdir()]
        headers[name] = sorted(peers.normal(text) for text in texts)
    assert replies["estafeta"] == replies["postfix"]
    assert headers["estafeta"] == headers["postfix"]


def test_cram_md5_with_and_without_a_realm(scene: Scene) -> None:
    for name in peers.NAMES:
        for user in ("user", "user@here.test"):
            with Client(scene.ports[name]["auth"]) as client:
                client.reply()
                challenge = base64.b64decode(client.ask(b"AUTH CRAM-MD5")[4:])
                digest = hmac.new(PASSWORD.encode(), challenge, hashlib.md5).hexdigest()
                assert client.ask(_b(f"{user} {digest}")) == b"235 2.7.0 Authentication successful\r\n", (name, user)


@pytest.mark.skipif(shutil.which("swaks") is None, reason="swaks is not installed")
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5"])
def test_swaks(scene: Scene, mechanism: str) -> None:
    support = subprocess.run(["swaks", "--support"], capture_output=True, text=True, timeout=30, check=False).stdout
    if mechanism == "DIGEST-MD5" and "AUTH DIGEST-MD5 supported" not in support:
        pytest.skip("swaks has no DIGEST-MD5: libauthen-sasl-perl is not installed")
    for name in peers.NAMES:
        command = ["swaks", "-s", "127.0.0.1", "-p", str(scene.ports[name]["auth"]), "-f", "a@b.c", "-t", "x@discard.test",
                   "--auth", mechanism, "--auth-user", "user", "--auth-password"]  # fmt: skip
        if mechanism == "DIGEST-MD5":
            command += [PASSWORD, "--auth-extra", "realm=here.test"]
        else:
            command += [PASSWORD]
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert result.returncode == 0, f"{name}\n{result.stdout}"
        wrong = subprocess.run([*command, "--auth-password", "bad"], capture_output=True, text=True, timeout=30, check=False)
        assert wrong.returncode == 28, f"{name}\n{wrong.stdout}"


def test_logins_at_each_other(scene: Scene) -> None:
    """5.4: each system logs in at the other by every mechanism, and says nothing of AUTH to a server that is not listed."""
    domains = [*(mechanism.lower() for mechanism in MECHANISMS), "bad"]
    lines = {}
    for name, system in scene.systems.items():
        for domain in domains:
            sender = ["sendmail", "-f", "a@b.c", f"x@{domain}.test"]
            assert system.command(*sender, input_bytes=b"Subject: x\n\nbody\n").returncode == 0
        for domain in domains:
            system.wait_log(rf"to=<x@{domain}\.test>.*status=")
        found = {}
        for domain in domains:
            match = re.search(rf"to=<x@{domain}\.test>.*(dsn=.*)", system.log())
            assert match is not None
            found[domain] = peers.normal(match[1])
        lines[name] = found
    assert lines["estafeta"]["bad"] == lines["postfix"]["bad"]
    for name, other in zip(peers.NAMES, reversed(peers.NAMES), strict=True):
        for mechanism in MECHANISMS:
            assert "status=sent" in lines[name][mechanism.lower()], lines[name]
            scene.systems[other].wait_log(rf"sasl_method={mechanism}, sasl_username=user@here.test")
