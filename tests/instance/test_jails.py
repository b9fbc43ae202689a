"""Services in their jails: chapter 7.8's master.cf as printed, mail through all of them, and what the processes can still reach."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import netns
from support.certificates import Authority
from support.instance import MASTER_CF, Client, Instance, running, wait_for
from support.peers import Conversation, Peer, wait_until
from support.tls_client import TlsClient, client_context, message
from support.tutorial_2002 import MASTER_7_8

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a jail"),
    pytest.mark.skipif(not Path("/proc/self/root").exists(), reason="needs Linux's /proc"),
]

MAIN_CF = """\
myhostname = mail.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 10.7.1.1
alias_maps =
virtual_mailbox_domains = box.test
virtual_mailbox_maps = hash:{etc}/mailboxes
virtual_mailbox_base = {top}/mail
virtual_minimum_uid = 1
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
transport_maps = hash:{etc}/transport
header_checks = regexp:{etc}/header_checks
smtpd_client_restrictions = check_client_access hash:{etc}/access
smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_sender_restrictions = reject_unknown_sender_domain
relay_domains = far.test, list.test
relay_transport = smtp
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_tls_security_level = may
smtpd_tls_loglevel = 1
smtp_tls_security_level = may
smtp_tls_CAfile = {authority}
"""

ZONES: dict[str, object] = {
    "here.test": {"MX": ["10 mx.here.test"], "A": ["10.7.1.10"]},
    "far.test": {"MX": ["10 mx.far.test"]},
    "mx.far.test": {"A": ["10.7.1.10"]},
    "10.1.7.10.in-addr.arpa": {"PTR": ["client.here.test"]},
    "client.here.test": {"A": ["10.7.1.10"]},
}
FILES = {
    "mailboxes": "joe@box.test joe/\n",
    "transport": "list.test lmtp:unix:private/store\nno.test error:5.1.1 nobody here\nfido.test ifmail:\n",
    "access": "client.here.test OK\n",
    "header_checks": "/^X-Bad:/ REJECT bad header\n",
}
JAILED = ("smtpd", "cleanup", "nqmgr", "trivial-rewrite", "bounce", "smtp", "showq", "error", "pickup")


def _workers(system: Peer) -> dict[str, int]:
    found = {}
    for pid in system.processes():
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
        except OSError:
            continue
        if " -n " in title:
            found[title.split()[0]] = pid
    return found


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.partition(":")[0]: line.partition(":")[2].strip() for line in lines}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="jails-"))
    base.chmod(0o755)
    yield base
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="module")
def system(place: Path) -> Iterator[tuple[Peer, netns.Network, netns.Sink]]:
    if netns.missing() is not None:
        pytest.skip(netns.missing() or "")
    authority = Authority(place / "ca")
    pair = authority.issue("mail.test", "mail.test")
    hosts = {"mail": ["10.7.1.1/16"], "client": ["10.7.1.10/16"]}
    values = {"certificate": pair.certificate, "key": pair.key, "authority": authority.certificate}
    with netns.network(hosts, ZONES, ["10.7.0.1/16"]) as network:
        zone = ["env", "TZ=Asia/Tokyo"]
        peer = Peer("estafeta", place / "system", MAIN_CF, "", files=FILES, values=values, level="",
                    prefix=[*network.prefix("mail"), *zone])  # fmt: skip
        peer.write("master.cf", MASTER_7_8)
        for table in ("mailboxes", "transport", "access"):
            assert peer.command("postmap", f"hash:{peer.etc}/{table}").returncode == 0
        sink = netns.Sink(network.listen("client", "10.7.1.10", 25), "mx.far.test")
        try:
            peer.start()
            yield peer, network, sink
        finally:
            sink.close()
            peer.stop()


def _send(network: netns.Network, *recipients: str, header: bytes = b"Subject: x", secure: bool = False) -> list[str]:
    link = network.connect("client", "10.7.1.1", 25)
    talk = Conversation(link)
    if secure:
        talk.reply()
        talk.ask(b"EHLO x")
        assert talk.ask(b"STARTTLS").startswith("220 ")
        talk = Conversation(client_context().wrap_socket(link, server_hostname="mail.test"))
        talk.ask(b"EHLO x")
        replies = [talk.ask(b"MAIL FROM:<a@here.test>"), *(talk.ask(f"RCPT TO:<{one}>".encode()) for one in recipients)]
        replies += [talk.ask(b"DATA"), talk.ask(header + b"\r\n\r\nx\r\n.")]
        talk.close()
        return replies
    return talk.message("a@here.test", list(recipients), header + b"\r\n\r\nx\r\n")


def test_the_tutorials_jails_carry_mail(system: tuple[Peer, netns.Network, netns.Sink]) -> None:
    peer, network, sink = system
    replies = _send(network, "joe@box.test", "x@far.test", secure=True)
    assert "queued as" in replies[-1], replies
    wait_until(lambda: len(list((peer.mail / "joe" / "new").glob("*"))) == 1, 20, peer.log())
    peer.wait_log(r"to=<x@far\.test>, relay=mx\.far\.test\[10\.7\.1\.10\]:25, .*status=sent")
    assert sink.deliveries[0].envelope[0].startswith("MAIL FROM:<a@here.test>")
    # DNS and hash tables: the client's name, the sender's domain; header checks.
    peer.wait_log(r"smtpd\[\d+\]: connect from client\.here\.test\[10\.7\.1\.10\]")
    assert "TLS connection established from client.here.test" in peer.log()
    assert any("550 5.7.1 bad header" in reply for reply in _send(network, "joe@box.test", header=b"X-Bad: 1"))
    refused = Conversation(network.connect("client", "10.7.1.1", 25)).message("a@nowhere.test", ["joe@box.test"], b"x: y\r\n\r\n")
    assert any("Sender address rejected: Domain not found" in reply for reply in refused)
    # A bounce, by the printed file's own services; lmtp has nobody to talk to; showq tells of it.
    assert "queued as" in _send(network, "x@list.test")[-2]
    peer.wait_log(r"to=<x@list\.test>, .*status=deferred")
    assert b"x@list.test" in peer.command("postqueue", "-p").stdout
    # The time zone of the start holds in the jail: nine hours east, both in the log and in the mail.
    (mail,) = (peer.mail / "joe" / "new").glob("*")
    assert b"+0900" in mail.read_bytes()
    # An unknown user of an entry that nobody uses is no problem.
    assert "unexpected" not in peer.log() and not [line for line in peer.log().splitlines() if "fatal" in line and "ftn" not in line]


def test_local_submission_and_bounces(system: tuple[Peer, netns.Network, netns.Sink]) -> None:
    peer, _, sink = system
    done = peer.command("sendmail", "-f", "back@far.test", "nobody@no.test", input_bytes=b"Subject: to nobody\n\nx\n")
    assert done.returncode == 0
    peer.wait_log(r"to=<back@far\.test>, relay=mx\.far\.test.*status=sent")
    assert any("RCPT TO:<back@far.test>" in one.envelope[1] for one in sink.deliveries)
    # ifmail's user does not exist: that matters when its entry is used, and only then.
    assert "user=ftn: unknown username" not in peer.log()
    assert peer.command("sendmail", "-f", "back@far.test", "x@fido.test", input_bytes=b"Subject: to fido\n\nx\n").returncode == 0
    peer.wait_log("master.cf, line 30: service ifmail: user=ftn: unknown username")
    assert b"x@fido.test" in peer.command("postqueue", "-p").stdout


def test_who_and_where_the_processes_are(system: tuple[Peer, netns.Network, netns.Sink]) -> None:
    peer, network, _ = system
    _send(network, "joe@box.test")
    peer.command("postqueue", "-p")
    workers = _workers(peer)
    assert {"smtpd", "cleanup", "nqmgr", "trivial-rewrite", "showq"} <= set(workers)
    uid = shutil.os.stat(peer.spool / "incoming").st_uid  # type: ignore[attr-defined]
    for program, pid in workers.items():
        status = _status(pid)
        if program in JAILED:
            assert os.readlink(f"/proc/{pid}/root") == str(peer.spool), program
        else:
            assert os.readlink(f"/proc/{pid}/root") == "/", program
        if program in ("local", "virtual", "pipe"):
            continue
        assert status["Uid"].split() == [str(uid)] * 4, program
        assert set(status["Gid"].split()) == set(status["Groups"].split()) and "0" not in status["Groups"].split(), program
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[kind], 16) == 0, (program, kind)
        assert status["NoNewPrivs"] == "1", program


def test_what_smtpd_has_open(system: tuple[Peer, netns.Network, netns.Sink]) -> None:
    peer, network, _ = system
    link = network.connect("client", "10.7.1.1", 25)
    talk = Conversation(link)
    talk.reply()
    pid = _workers(peer)["smtpd"]
    listening = _listening(pid)
    seen = 0
    for entry in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{entry}"
        target = os.readlink(path)
        kind = os.stat(path).st_mode
        if stat.S_ISDIR(kind):
            assert Path(target) == peer.spool, f"a directory outside of the jail: {target}"
        elif stat.S_ISREG(kind):
            # Tables that were opened at the start stay open: the files themselves, for reading.
            flags = int(Path(f"/proc/{pid}/fdinfo/{entry}").read_text().split("flags:")[1].split()[0], 8)
            assert target == str(peer.log_path) or flags & os.O_ACCMODE == os.O_RDONLY, target
            assert "ca/" not in target and not target.endswith(".cf"), target
        elif target.startswith("socket:") and target[8:-1] in listening:
            assert listening[target[8:-1]] == "tcp", "another service's socket"
            seen += 1
    assert seen == 1, "its own listening socket and no other"
    talk.close()


def _listening(pid: int) -> dict[str, str]:
    """Inodes of listening sockets in the process's network."""
    found = {}
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A":
            found[fields[9]] = "tcp"
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "00010000":
            found[fields[6]] = "unix"
    return found


_INTRUDER = """
import ctypes, json, os, sys
pid, paths = sys.argv[1], sys.argv[2:]
lines = open(f"/proc/{pid}/status").read().splitlines()
status = {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}
root = os.open(f"/proc/{pid}/root", os.O_RDONLY)
os.fchdir(root); os.close(root); os.chroot(".")
os.setgroups([int(group) for group in status["Groups"]])
os.setresgid(*[int(group) for group in status["Gid"][:3]])
os.setresuid(*[int(user) for user in status["Uid"][:3]])
result = {}
for path in paths:
    for form in (path, "/../../.." + path, "../" * 20 + path.lstrip("/")):
        try:
            os.close(os.open(form, os.O_RDONLY))
            result[form] = "open"
        except OSError as error:
            result[form] = error.strerror
try:
    os.chroot("/etc")
    result["chroot"] = "open"
except OSError as error:
    result["chroot"] = error.strerror
print(json.dumps(result))
"""


def _intrude(pid: int, *paths: object) -> dict[str, str]:
    """What somebody who has taken over process ``pid`` gets: the same root, user and groups."""
    command = [sys.executable, "-c", _INTRUDER, str(pid), *map(str, paths)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    found: dict[str, str] = json.loads(result.stdout)
    return found


def test_smtpd_cannot_reach_keys_and_tables(system: tuple[Peer, netns.Network, netns.Sink], place: Path) -> None:
    peer, network, _ = system
    _send(network, "joe@box.test")
    workers = _workers(peer)
    key = place / "ca" / "mail.test.key"
    assert peer.etc.is_dir()
    paths = [peer.etc, peer.etc / "main.cf", peer.etc / "mailboxes.db", *(place / "ca").glob("*.key"), "/etc/passwd", "/etc/shadow"]
    assert len(paths) > 5, key
    for program in ("smtpd", "cleanup", "nqmgr"):
        found = _intrude(workers[program], *paths, "/etc/resolv.conf")
        assert found.pop("/etc/resolv.conf") == "open", "the jail's own copy"
        found = {path: answer for path, answer in found.items() if not path.endswith("etc/resolv.conf")}
        assert "open" not in found.values(), (program, found)


def test_check_and_start_look_after_the_copies() -> None:
    jailed = MASTER_CF.replace("inet n - n", "inet n - y")
    with running(master_cf=jailed) as instance:
        copy = instance.spool / "etc" / "resolv.conf"
        assert copy.read_bytes() == Path("/etc/resolv.conf").read_bytes()
        assert (copy.stat().st_uid, copy.stat().st_mode & 0o777) == (0, 0o644)
        assert "differ" not in instance.command("postfix", "check").stderr
        copy.write_text("nameserver 192.0.2.1\n")
        assert f"warning: {copy} and /etc/resolv.conf differ" in instance.command("postfix", "check").stderr
        instance.stop()
        instance.start()
        assert copy.read_bytes() == Path("/etc/resolv.conf").read_bytes()
        copy.write_text("nameserver 192.0.2.1\n")
        assert instance.command("postfix", "reload").returncode == 0
        instance.wait_log("reload -- version")
        assert copy.read_bytes() == Path("/etc/resolv.conf").read_bytes()
        # Somebody else's directory is not written to.
        instance.stop()
        shutil.rmtree(instance.spool / "etc")
        (instance.spool / "etc").symlink_to("/tmp")
        instance.start()
        instance.wait_log(rf"warning: {copy}: not a directory of root's own")
        (instance.spool / "etc").unlink()


def test_nobody_in_jail_means_no_copies() -> None:
    with running() as instance:
        assert not (instance.spool / "etc").exists()


@pytest.mark.parametrize("program", ["local", "virtual", "pipe"])
def test_programs_that_refuse(program: str) -> None:
    line = "x unix - n y - - pipe user=nobody argv=/bin/true\n" if program == "pipe" else f"x unix - n y - - {program}\n"
    instance = Instance(master_cf=MASTER_CF + line)
    try:
        result = instance.command("postfix", "start")
        assert result.returncode == 1
        assert f"{program} cannot run in a jail" in result.stderr, result.stderr
        assert not instance.processes()
    finally:
        instance.remove()


def test_renewed_certificates_reach_a_jailed_server() -> None:
    jailed = MASTER_CF.replace("inet n - n", "inet n - y")
    instance = Instance("smtpd_tls_security_level = may\n", jailed)
    try:
        authority = Authority(instance.directory / "ca")
        pair = authority.issue("mail.test.example")
        main = instance.etc / "main.cf"
        main.write_text(main.read_text() + f"smtpd_tls_cert_file = {pair.certificate}\nsmtpd_tls_key_file = {pair.key}\n")
        instance.start()

        def certificate() -> bytes | None:
            with TlsClient(instance.port) as client:
                secured = client.start_tls()
                message(client)
                return secured.getpeercert(True)

        first = certificate()
        authority.issue("mail.test.example", file=pair.certificate.stem)
        instance.wait_log("certificate files have changed: new workers")
        wait_for(lambda: certificate() != first, what="the new certificate")
        assert not instance.unexpected()
        instance.stop()
    finally:
        instance.stop()
        instance.remove()


def test_log_rotation_reaches_a_jailed_server() -> None:
    jailed = MASTER_CF.replace("inet n - n", "inet n - y").replace("- n 300 1 qmgr", "- y 300 1 qmgr")
    with running(master_cf=jailed) as instance:
        instance.log_path.rename(instance.directory / "old")
        assert instance.command("postfix", "reload").returncode == 0
        instance.wait_log("reload -- version")
        with Client(instance.port) as client:
            client.reply()
            client.ask(b"EHLO x")
            assert client.send(b"a@test.example", [b"joe@box.test"], b"Subject: x\r\n\r\nx").startswith(b"250 ")
        instance.wait_log("qmgr.*removed")
        instance.wait_log("smtpd.*connect from")


def test_a_jailed_client_verifies_its_server(place: Path) -> None:
    authority = Authority(place / "ca-client")
    pair = authority.issue("127.0.0.1", "127.0.0.1")
    server = f"smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {pair.certificate}\nsmtpd_tls_key_file = {pair.key}\n"
    with running(server) as far:
        jailed = "\n".join(
            line.replace(" - n ", " - y ") if line.split()[7] in ("smtp", "smtpd", "cleanup", "qmgr") else line
            for line in MASTER_CF.splitlines()
        )
        client = (
            f"virtual_mailbox_domains =\nrelay_domains = box.test\nrelay_transport = smtp:[127.0.0.1]:{far.port}\n"
            f"smtp_tls_security_level = secure\nsmtp_tls_secure_cert_match = 127.0.0.1\n"
            f"smtp_tls_CAfile = {authority.certificate}\nsmtp_tls_loglevel = 1\n"
        )
        with running(client, jailed + "\n") as near:
            with Client(near.port) as talk:
                talk.reply()
                talk.ask(b"EHLO x")
                assert talk.send(b"a@test.example", [b"joe@box.test"], b"Subject: x\r\n\r\nx").startswith(b"250 ")
            near.wait_log(r"Verified TLS connection established to 127\.0\.0\.1")
            wait_for(lambda: far.mailbox("joe"), what="mail over verified TLS")
            pid = near.pids("smtp")[0]
            assert os.readlink(f"/proc/{pid}/root") == str(near.spool)
            assert not near.unexpected()
