"""TLS on Debian's Postfix and on Estafeta with the same main.cf: replies, Received headers, log lines, and mail between the two."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "support"))

import peers  # noqa: E402
from support.certificates import Authority, Pair  # noqa: E402
from support.instance import Client  # noqa: E402
from support.ports import free_port  # noqa: E402
from support.tls_client import TlsClient, client_context, message  # noqa: E402

pytestmark = [
    pytest.mark.skipif(peers.missing() is not None, reason=peers.missing() or ""),
    pytest.mark.xdist_group("peers"),
]

MAIN_CF = """\
myhostname = mail.here.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
virtual_mailbox_domains = box.test
virtual_mailbox_maps = inline:{ { user@box.test = user/ } }
virtual_mailbox_base = {top}/mail
virtual_minimum_uid = 1
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
alias_maps =
alias_database =
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_tls_CAfile = {authority}
smtpd_tls_security_level = may
smtpd_tls_received_header = yes
smtpd_tls_loglevel = 1
smtpd_starttls_timeout = 2
smtp_tls_CAfile = {authority}
smtp_tls_loglevel = 1
smtp_tls_fingerprint_digest = sha256
transport_maps = inline:{ {routes} { box.test = virtual: } }
"""
MASTER_CF = """\
127.0.0.1:{may} inet n - n - - smtpd
127.0.0.1:{ask} inet n - n - - smtpd -o smtpd_tls_ask_ccert=yes
127.0.0.1:{require} inet n - n - - smtpd -o smtpd_tls_security_level=encrypt -o smtpd_tls_req_ccert=yes
127.0.0.1:{wrapped} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
127.0.0.1:{nokey} inet n - n - - smtpd -o smtpd_tls_key_file=/nonexistent
127.0.0.1:{none} inet n - n - - smtpd -o smtpd_tls_security_level=none
127.0.0.1:{far} inet n - n - - smtpd -o content_filter=discard:
127.0.0.1:{farnokey} inet n - n - - smtpd -o content_filter=discard: -o smtpd_tls_key_file=/nonexistent
127.0.0.1:{farnone} inet n - n - - smtpd -o content_filter=discard: -o smtpd_tls_security_level=none
tlsmgr unix - - n 1000? 1 tlsmgr
"""
PORTS = ("may", "ask", "require", "wrapped", "nokey", "none", "far", "farnokey", "farnone")
POLICIES = {
    "may": ("far", "may"),
    "enc": ("far", "encrypt protocols=TLSv1.2 exclude=aNULL"),
    "sec": ("far", "secure match=mail.here.test"),
    "secbad": ("far", "secure match=nexthop"),
    "verbad": ("far", "verify match=other.example"),
    "fp": ("far", "fingerprint match={fingerprint}"),
    "pk": ("far", "fingerprint match={pubkey}"),
    "encnone": ("farnone", "encrypt"),
    "maynone": ("farnone", "may"),
    "encbad": ("farnokey", "encrypt"),
    "maybad": ("farnokey", "may"),
    "none": ("far", "none"),
    "bogus": ("far", "bogus"),
}


class Scene:
    """Both systems, their ports, and the certificates."""

    def __init__(self, top: Path) -> None:
        self.authority = Authority(top / "ca")
        self.pair = self.authority.issue("mail.here.test", "mail.here.test", rsa_key=True)
        self.ports = {name: {port: free_port() for port in PORTS} for name in peers.NAMES}
        self.systems = {}
        for name, other in zip(peers.NAMES, reversed(peers.NAMES), strict=True):
            services, routes = MASTER_CF, ""
            for domain, (port, policy) in POLICIES.items():
                policy = policy.format(fingerprint=self.pair.fingerprint, pubkey=self.pair.pubkey_fingerprint)
                nexthop = f"[127.0.0.1]:{self.ports[other][port]}"
                services += f"t{domain} unix - - n - - smtp -o {{ smtp_tls_policy_maps = inline:{{ {{ {nexthop} = {policy} }} }} }}\n"
                routes += f"{{ {domain}.test = t{domain}:{nexthop} }} "
            values = {
                **self.ports[name], "certificate": self.pair.certificate, "key": self.pair.key, "routes": routes,
                "authority": self.authority.certificate,
            }  # fmt: skip
            main = MAIN_CF + "relay_domains = " + " ".join(f"{domain}.test" for domain in POLICIES) + "\n"
            self.systems[name] = peers.Peer(name, top / name, main, services, values=values)

    def mail(self, name: str) -> list[str]:
        """The messages of user, oldest first."""
        folder = self.systems[name].mail / "user" / "new"
        return [path.read_text() for path in sorted(folder.glob("*"), key=lambda path: path.stat().st_mtime_ns)]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    top = Path(tempfile.mkdtemp(prefix="tls-beside-"))
    top.chmod(0o755)
    scene = Scene(top)
    try:
        for system in scene.systems.values():
            system.start()
        yield scene
    finally:
        for system in scene.systems.values():
            system.stop()
        shutil.rmtree(top, ignore_errors=True)


def _lines(text: str, program: str) -> list[str]:
    """The log lines of one program about TLS, without what differs by nature."""
    found = []
    for line in text.splitlines():
        match = re.search(rf"/{program}\[\d+\]: (.*)", line)
        if match and re.search(r"TLS|SSL|abort|lost connection after STARTTLS|certificate|disconnect", match[1]):
            found.append(re.sub(r"(routines::[^:]*):.*", r"\1", match[1]))
    return found


def _same_replies(scene: Scene, port: str, talk: list[bytes]) -> None:
    said = {}
    for name in peers.NAMES:
        with Client(scene.ports[name][port]) as client:
            said[name] = [client.reply(), *(client.ask(line) for line in talk)]
    assert said["estafeta"] == said["postfix"]


def test_replies_in_clear(scene: Scene) -> None:
    everything = [b"MAIL FROM:<>", b"RSET", b"VRFY x", b"ETRN x", b"NOOP", b"HELP", b"RCPT TO:<x@box.test>", b"DATA", b"FOO", b"QUIT"]
    for port in ("require", "none", "nokey"):
        _same_replies(scene, port, [b"EHLO x", b"STARTTLS x"] + ([b"STARTTLS"] if port != "require" else []) + everything)
    _same_replies(scene, "may", [b"HELO x", b"STARTTLS x", b"QUIT"])


def _sessions(scene: Scene, name: str, good: Pair, own: Pair) -> list[bytes]:
    ports = scene.ports[name]
    said: list[bytes] = []
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with TlsClient(ports["may"]) as client:
            client.start_tls(client_context(version))
            said += [client.ask(line) for line in (b"STARTTLS", b"EHLO again", b"NOOP")]
            message(client)
            said.append(client.ask(b"QUIT"))
    for certificate in (good, own, None):
        with TlsClient(ports["ask"]) as client:
            client.start_tls(client_context(pair=certificate))
            message(client)
            said.append(client.ask(b"QUIT"))
        with TlsClient(ports["require"]) as client:
            client.reply()
            client.ask(b"EHLO x")
            client.ask(b"STARTTLS")
            client.secure(client_context(pair=certificate))
            said.append(client.ask(b"EHLO x"))
            if certificate is good:
                said.append(client.ask(b"QUIT"))
    with TlsClient(ports["wrapped"]) as client:
        client.secure()
        said += [client.reply(), client.ask(b"EHLO x"), client.ask(b"STARTTLS")]
        message(client)
        said.append(client.ask(b"QUIT"))
    with TlsClient(ports["may"]) as client:  # injection
        client.reply()
        client.ask(b"EHLO x")
        client.socket.sendall(b"STARTTLS\r\nMAIL FROM:<evil@box.test>\r\nNOOP\r\n")
        said.append(client.reply())
        client.secure()
        said += [client.ask(b"RCPT TO:<user@box.test>"), client.ask(b"QUIT")]
    with Client(ports["may"]) as plain:  # a client that goes away in the handshake
        plain.reply()
        plain.ask(b"EHLO x")
        plain.ask(b"STARTTLS")
    with Client(ports["may"]) as plain:  # one that says nothing, for longer than smtpd_starttls_timeout
        plain.reply()
        plain.ask(b"EHLO x")
        plain.ask(b"STARTTLS")
        said.append(plain.reply())
    return said


def test_sessions(scene: Scene) -> None:
    good = scene.authority.issue("client.here.test")
    own = scene.authority.issue("self signed", self_signed=True)
    said, logs, received = {}, {}, {}
    for name, system in scene.systems.items():
        before = len(system.log())
        said[name] = _sessions(scene, name, good, own)
        system.wait_log(r"SSL_accept error from \S+: Connection timed out")
        peers.wait_until(lambda name=name: len(scene.mail(name)) >= 7, 20, "seven messages")  # type: ignore[misc]
        logs[name] = sorted(_lines(system.log()[before:], "smtpd"))
        received[name] = sorted(peers.normal(text[text.index("Received:") : text.index("\n\tfor ")]) for text in scene.mail(name))
    assert said["estafeta"] == said["postfix"]
    assert received["estafeta"] == received["postfix"]
    assert logs["estafeta"] == logs["postfix"]


def test_mail_from_one_to_the_other(scene: Scene) -> None:
    """Postfix's smtp to our smtpd and ours to Postfix's, under every policy."""
    results = {}
    for name, system in scene.systems.items():
        before = len(system.log())
        with Client(scene.ports[name]["none"]) as client:
            client.reply()
            client.ask(b"EHLO x")
            for domain in POLICIES:
                assert client.send(b"a@box.test", [f"u@{domain}.test".encode()], b"Subject: x\r\n\r\nx").startswith(b"250")
        system.wait_log(r"/smtp\[\d+\]: \w+: to=<u@\w+\.test>, .*status=", count=len(POLICIES))
        text = re.sub(r":\d{4,5}\b", ":PORT", system.log()[before:])
        lines = [re.sub(r"status=sent .*", "status=sent", line) for line in text.splitlines() if re.search(r"/smtp\[", line)]
        lines = [re.sub(r".*?/smtp\[\d+\]: ", "", line) for line in lines]
        lines = [re.sub(r"^\w+: (to=\S+) (relay=\S+) .*(dsn=.*)", r"\1 \2 \3", line) for line in lines]
        results[name] = sorted(lines)
    assert results["estafeta"] == results["postfix"]


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_resumes(scene: Scene, version: str, tmp_path: Path) -> None:
    for name in peers.NAMES:
        base = ["openssl", "s_client", "-starttls", "smtp", "-connect", f"127.0.0.1:{scene.ports[name]['may']}", version]
        session = str(tmp_path / name)
        for option in ("-sess_out", "-sess_in"):
            command = [*base, "-ign_eof", option, session]
            again = subprocess.run(command, input=b"EHLO x\nQUIT\n", capture_output=True, timeout=30, check=False)
        assert b"Reused, TLSv1" in again.stdout, f"{name}: {again.stdout[-1500:]!r}"


@pytest.mark.skipif(shutil.which("posttls-finger") is None, reason="posttls-finger is not installed")
def test_posttls_finger_verifies(scene: Scene) -> None:
    found = {}
    for name in peers.NAMES:
        command = [
            "posttls-finger", "-c", "-l", "secure", "-F", str(scene.authority.certificate), "-d", "sha256",
            f"[127.0.0.1]:{scene.ports[name]['may']}", "mail.here.test",
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, timeout=30, check=False, text=True)
        output = result.stdout + result.stderr
        found[name] = [re.sub(r":\d{4,5}\b", ":PORT", line) for line in output.splitlines() if "TLS connection" in line]
    assert found["postfix"]
    assert "Verified TLS connection established" in found["postfix"][0]
    assert found["estafeta"] == found["postfix"]
