"""The same local submissions to Postfix and to Estafeta: the notices must have the same parts and fields, the commands say the same."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import peers
from support.notice_shape import notice_shape

pytestmark = [
    pytest.mark.skipif(peers.missing() is not None, reason=peers.missing() or ""),
    pytest.mark.xdist_group("peers"),
]

MAIN_CF = """
myhostname = mail.example.com
mydomain = example.com
mydestination = localhost.example.com
alias_maps =
alias_database =
relay_domains = retry.example, discard.example
virtual_alias_domains = va.example
notify_classes = bounce, 2bounce
transport_maps = inline:{ {retry.example=retry:4.4.1 try later}, {discard.example=discard:}, {mail.example.com=retry:4.4.1 try later} }
"""
SENDER = "me@retry.example"
BODY = b"Subject: hi\nTo: x@va.example\n\nBody\n.\nmore\n"
# the arguments of sendmail, and the message
SUBMISSIONS: list[tuple[list[str], bytes]] = [
    (["-i", "-f", SENDER, "-V", "env+id", "nobody@va.example", "other@va.example"], BODY),
    (["-f", SENDER, "-R", "hdrs", "-N", "success,failure", "ok@discard.example"], BODY),
    (["-i", "-f", SENDER, "nöbody@va.example"], "Subject: é\n\nü\n".encode()),
    (["-f", "<>", "nobody@va.example"], BODY),
]
REFUSED: list[list[str]] = [[], ["-t"], ["-bz"], ["-n", "x"], ["-f"], ["-bp", "x"], ["-B", "9", "x"], ["-qX"], ["-bv", "-t"]]


def _notices(system: peers.Peer) -> list[bytes]:
    found = []
    for line in system.command("postqueue", "-j").stdout.splitlines():
        entry = json.loads(line)
        if entry["sender"] in ("MAILER-DAEMON", "double-bounce@mail.example.com"):
            found.append(system.command("postcat", "-bhq", entry["queue_id"]).stdout)
    return found


@pytest.fixture(scope="module")
def systems() -> Iterator[dict[str, peers.Peer]]:
    base = Path(tempfile.mkdtemp(prefix="bounces-"))
    base.chmod(0o755)
    running: dict[str, peers.Peer] = {}
    try:
        for name in peers.NAMES:
            system = running[name] = peers.Peer(name, base / name, MAIN_CF, "")
            system.start()
            for arguments, message in SUBMISSIONS:
                result = system.command("sendmail", *arguments, input_bytes=message)
                assert result.returncode == 0, result.stderr
        for system in running.values():
            system.wait_log("sender non-delivery notification", count=2)
            system.wait_log("postmaster non-delivery notification", count=3)
            system.wait_log("sender delivery status notification")
            system.wait_log(r"to=<.*status=deferred", count=6)
        yield running
    finally:
        for system in running.values():
            system.stop()
        shutil.rmtree(base, ignore_errors=True)


def test_notices(systems: dict[str, peers.Peer]) -> None:
    shapes = {name: sorted(notice_shape(data) for data in _notices(system)) for name, system in systems.items()}
    assert len(shapes["postfix"]) == 6
    for theirs, ours in zip(shapes["postfix"], shapes["estafeta"], strict=True):
        assert ours == theirs


def test_log(systems: dict[str, peers.Peer]) -> None:
    wanted = re.compile(r"(?:bounce|pickup)\[\d+\]: \w+: ((?:sender|postmaster) .*:|uid=.*)")
    lines = {name: sorted(wanted.findall(system.log())) for name, system in systems.items()}
    assert lines["estafeta"] == lines["postfix"]


def test_listing(systems: dict[str, peers.Peer]) -> None:
    tables = []
    for system in systems.values():
        text = system.command("sendmail", "-bp").stdout.decode()
        tables.append((text.splitlines()[0], sorted(line for line in text.splitlines() if line.startswith("  "))))
    assert tables[0] == tables[1]


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_refused(systems: dict[str, peers.Peer], arguments: list[str]) -> None:
    answers = []
    for system in systems.values():
        result = system.command("sendmail", *arguments, input_bytes=b"Subject: x\n\n")
        answers.append((result.returncode, result.stderr.decode().splitlines()[-1:]))
    assert answers[1] == answers[0]


@pytest.mark.parametrize("arguments", [["-d", "x/y"], ["-d", "NOSUCH12"], ["-r", "NOSUCH12"], ["-x"], ["-H", "ALL", "bogus"]], ids=" ".join)
def test_postsuper(systems: dict[str, peers.Peer], arguments: list[str]) -> None:
    answers = []
    for system in systems.values():
        result = system.command("postsuper", *arguments)
        answers.append((result.returncode, result.stderr.decode().splitlines()[-1:]))
    assert answers[1] == answers[0]
