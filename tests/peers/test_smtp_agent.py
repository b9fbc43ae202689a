"""The same misbehaving servers for Postfix's smtp(8) and for ours: the log must say the same."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from support.smtp_agent import Agent
from support.smtp_sink import SmtpSink

SENDMAIL = "/usr/sbin/sendmail"
POSTFIX = "/usr/sbin/postfix"

pytestmark = [
    pytest.mark.skipif(not os.path.exists("/usr/lib/postfix/sbin/smtp"), reason="no Postfix on this machine"),
    pytest.mark.skipif(os.geteuid() != 0, reason="Postfix must be started by root"),
]

PLAIN = "250 sink.example"
MANY = "250-one\r\n250-two of it\r\n250 2.1.5 three"

# name: (replies of the first server, replies of the second or None, recipients)
SCENARIOS: dict[str, tuple[dict[str, str], dict[str, str] | None, int]] = {
    "ok": ({}, None, 1),
    "multiline-ok": ({"DOT": MANY}, None, 1),
    "rcpt550": ({"RCPT": "550 5.1.1 unknown user"}, None, 2),
    "rcpt450": ({"RCPT": "450 4.2.1 greylisted"}, None, 1),
    "rcpt650": ({"RCPT": "650 what is this"}, None, 1),
    "rcpt354": ({"RCPT": "354 go on"}, None, 1),
    "rcpt-no-status": ({"RCPT": "553 sorry, no"}, None, 1),
    "rcpt-class-mismatch": ({"RCPT": "550 4.1.1 mixed"}, None, 1),
    "rcpt-multiline": ({"RCPT": "550-5.7.1 first line\r\n550-5.7.1 second line\r\n550 5.7.1 third"}, None, 1),
    "mail550": ({"MAIL": "550 5.7.1 go away"}, None, 2),
    "mail451": ({"MAIL": "451 4.3.0 later"}, None, 1),
    "mail421": ({"MAIL": "421 4.3.0 closing"}, None, 1),
    "data554": ({"DATA": "554 5.6.0 no data"}, None, 1),
    "data451": ({"DATA": "451 4.6.0 no data"}, None, 1),
    "data250": ({"EHLO": PLAIN, "DATA": "250 what"}, None, 1),
    "dot554": ({"DOT": "554 5.7.1 spam"}, None, 2),
    "dot452": ({"DOT": "452 4.3.1 full"}, None, 1),
    "greet421": ({"GREETING": "421 4.7.0 busy"}, None, 1),
    "greet554": ({"GREETING": "554 5.7.1 no"}, None, 1),
    "greet-close": ({"GREETING": "close"}, None, 1),
    "greet-odd": ({"GREETING": "650 odd"}, None, 1),
    "ehlo421": ({"EHLO": "421 4.7.0 busy"}, None, 1),
    "ehlo-close": ({"EHLO": "close"}, None, 1),
    "helo550": ({"EHLO": "502 what", "HELO": "550 5.7.1 no"}, None, 1),
    "helo450": ({"EHLO": "502 what", "HELO": "450 4.7.1 no"}, None, 1),
    "helo-ok": ({"EHLO": "502 what"}, None, 1),
    "mail-close": ({"EHLO": PLAIN, "MAIL": "close"}, None, 1),
    "rcpt-close": ({"EHLO": PLAIN, "RCPT": "close"}, None, 1),
    "data-close": ({"EHLO": PLAIN, "DATA": "close"}, None, 1),
    "dot-close": ({"EHLO": PLAIN, "DOT": "close"}, None, 1),
    "mail-silence": ({"EHLO": PLAIN, "MAIL": "silence"}, None, 1),
    "greet-silence": ({"GREETING": "silence"}, None, 1),
    "dot-silence": ({"EHLO": PLAIN, "DOT": "silence"}, None, 1),
    "size": ({"EHLO": "250-sink.example\r\n250 SIZE 10"}, None, 1),
    "greet554-noskip": ({"GREETING": "554-5.7.1 no\r\n554 5.7.1 really"}, None, 1),
    "rcpt-mixed-all-later": ({"RCPT:r0@rcpt-mixed-all-later.route": "450 4.1.1 a", "RCPT": "451 4.1.2 b"}, None, 2),
    "rcpt-garbage": ({"RCPT": "what\r\n250 2.1.5 ok"}, None, 1),
    "greet-garbage": ({"GREETING": "hello there\r\n220 sink ESMTP"}, None, 1),
    "dot-long": ({"DOT": "550 5.7.1 " + "x" * 3000}, None, 1),
    "dot-many": ({"DOT": "".join(f"550-5.7.1 {n:0200}\r\n" for n in range(20)) + "550 5.7.1 end"}, None, 1),
    "dot-8bit": ({"DOT": "550 5.7.1 se\xf1or \x07"}, None, 1),
    "mail421-close": ({"MAIL": "421 4.3.0 closing close"}, None, 1),
    "rcpt421-close": ({"RCPT": "421 4.3.0 closing close"}, None, 2),
    "data421-close": ({"DATA": "421 4.3.0 closing close"}, None, 1),
    "dot421-close": ({"DOT": "421 4.3.0 closing close"}, None, 1),
    "plain-rcpt421": ({"EHLO": PLAIN, "RCPT": "421 4.3.0 closing close"}, None, 2),
    "xforward": ({"EHLO": "250-sink\r\n250 XFORWARD NAME ADDR PROTO HELO SOURCE PORT IDENT", "XFORWARD": "250 ok"}, None, 1),
    "xforward-refused": ({"EHLO": "250-sink\r\n250 XFORWARD NAME ADDR"}, None, 1),
    "two-greet421": ({"GREETING": "421 4.7.0 busy"}, {}, 1),
    "two-greet-close": ({"GREETING": "close"}, {}, 1),
    "two-ehlo550": ({"EHLO": "550 5.1.1 no", "HELO": "550 5.1.1 no"}, {}, 1),
    "two-mail451": ({"MAIL": "451 4.3.0 later"}, {}, 2),
    "two-rcpt450": ({"RCPT": "450 4.2.1 later"}, {}, 2),
    "two-dot452": ({"DOT": "452 4.3.1 full"}, {}, 2),
    "two-dot-close": ({"EHLO": PLAIN, "DOT": "close"}, {}, 1),
    "two-both450": ({"RCPT": "450 4.2.1 first"}, {"RCPT": "451 4.2.1 second"}, 1),
    "two-then-refused": ({"RCPT": "450 4.2.1 first"}, {"GREETING": "554 5.0.0 second"}, 1),
    "two-size": ({"EHLO": "250-sink.example\r\n250 SIZE 10"}, {}, 1),
}

COMMON = {
    "smtp_helo_timeout": "1s",
    "smtp_mail_timeout": "1s",
    "smtp_data_done_timeout": "1s",
    "smtp_fallback_relay": "",
    "smtp_send_xforward_command": "yes",
}

MASTER_CF = """\
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
"""


class Servers:
    """The servers of all scenarios, and a dead port."""

    def __init__(self) -> None:
        self.first: dict[str, SmtpSink] = {}
        self.second: dict[str, SmtpSink] = {}

    async def __aenter__(self) -> Servers:
        for name, (one, two, _) in SCENARIOS.items():
            self.first[name] = await SmtpSink(dict(one)).__aenter__()
            if two is not None:
                self.second[name] = await SmtpSink(dict(two), host="127.0.0.2").__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for sink in (*self.first.values(), *self.second.values()):
            await sink.__aexit__()

    def nexthop(self, name: str) -> str:
        first = f"[127.0.0.1]:{self.first[name].port}"
        return f"{first}, [127.0.0.2]:{self.second[name].port}" if name in self.second else first


def _clean(line: str) -> str:
    """A log line without what differs from run to run."""
    line = re.sub(r"^[0-9A-F]+: |^Q\d+: ", "ID: ", line)
    line = re.sub(r"delays?=[0-9./]+", "delay=", line)
    line = re.sub(r"message size \d+", "message size N", line)
    # Postfix cuts log lines at 2000 characters.
    return re.sub(r"\]:\d+", "]:PORT", line)[:1500]


def _recipients(name: str) -> list[str]:
    return [f"r{number}@{name}.route" for number in range(SCENARIOS[name][2])]


def _add_commands(servers: Servers, found: dict[str, list[str]]) -> None:
    """What the servers heard, beside what was logged."""
    for name in SCENARIOS:
        for sinks in (servers.first, servers.second):
            if name in sinks:
                # Ours needs no RSET before QUIT, and says QUIT where Postfix only hangs up.
                commands = [
                    re.sub(r"SIZE=\d+|IDENT=\S+", "", line)
                    for line in sinks[name].commands
                    if line not in ("RSET", "QUIT")
                ]
                found.setdefault(name, []).append("heard: " + " | ".join(commands))
                sinks[name].sessions.clear()


async def _postfix(servers: Servers, base: Path) -> dict[str, list[str]]:
    etc = base / "etc"
    for part in (etc, base / "data", base / "spool"):
        part.mkdir()
    shutil.chown(base / "data", "postfix")
    routes = "b.example discard:\n"
    routes += "\n".join(f"{name}.route smtp:{servers.nexthop(name)}" for name in SCENARIOS)
    (etc / "routes").write_text(routes + "\n")
    (etc / "main.cf").write_text(
        "compatibility_level = 3.6\nmyhostname = me.example\nmydestination =\ninet_interfaces = 127.0.0.1\n"
        f"queue_directory = {base}/spool\ndata_directory = {base}/data\nmaillog_file = {base}/log\n"
        f"maillog_file_prefixes = {base}\nalias_maps =\nnotify_classes =\ninet_protocols = ipv4\n"
        f"transport_maps = texthash:{etc}/routes\n" + "".join(f"{key} = {value}\n" for key, value in COMMON.items())
    )
    (etc / "master.cf").write_text(MASTER_CF)
    run = asyncio.create_subprocess_exec
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    start = await run(POSTFIX, "-c", str(etc), "start", **quiet)
    assert await start.wait() == 0
    log = base / "log"
    try:
        for name in SCENARIOS:
            sender = await run(
                SENDMAIL, "-C", str(etc), "-i", "-f", "from@b.example", *_recipients(name), stdin=subprocess.PIPE
            )
            await sender.communicate(b"Subject: x\n\nhello\n")
        wanted = sum(count for _, _, count in SCENARIOS.values())
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            text = log.read_text() if log.exists() else ""
            if len(re.findall(r"postfix/smtp\[\d+\]: .*status=", text)) >= wanted:
                break
            await asyncio.sleep(0.1)
    finally:
        stop = await run(POSTFIX, "-c", str(etc), "abort", **quiet)
        await stop.wait()
    found: dict[str, list[str]] = {}
    owners: dict[str, str] = {}
    lines = [match[1] for match in re.finditer(r"postfix/smtp\[\d+\]: (.*)", text)]
    for line in lines:
        match = re.match(r"([0-9A-F]+): to=<r\d+@(.*?)\.route>", line)
        if match:
            owners[match[1]] = match[2]
    for line in lines:
        name = owners.get(line.partition(":")[0])
        if name is not None:
            found.setdefault(name, []).append(_clean(line))
    return found


async def _ours(servers: Servers, directory: Path) -> dict[str, list[str]]:
    agent = Agent(directory, **COMMON)  # type: ignore[arg-type]
    await agent.smtp.start()
    found: dict[str, list[str]] = {}
    for name in SCENARIOS:
        agent.lines.clear()
        await agent.deliver(servers.nexthop(name), *(item.encode() for item in _recipients(name)))
        found[name] = [_clean(line) for line in agent.lines]
    await agent.smtp.stop()
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    async def run() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        with tempfile.TemporaryDirectory(prefix="smtp-peer-") as name:
            base = Path(name)
            base.chmod(0o755)  # noqa: ASYNC240
            async with Servers() as servers:
                theirs = await _postfix(servers, base)
                _add_commands(servers, theirs)
                ours = await _ours(servers, tmp_path_factory.mktemp("ours"))
                _add_commands(servers, ours)
        return theirs, ours

    here = Path.cwd()
    try:
        return asyncio.run(asyncio.wait_for(run(), 150))
    finally:
        os.chdir(here)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_log_says_the_same(both: tuple[dict[str, list[str]], dict[str, list[str]]], name: str) -> None:
    theirs, ours = both
    assert sorted(ours[name]) == sorted(theirs.get(name, []))
