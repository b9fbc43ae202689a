"""A system-call trace shows that no 250 after DATA or the last BDAT precedes the sync of its data (issue 2, point 7)."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from support.instance import Client, running, wait_for

CALL = re.compile(r"^(\d+)\s+([\d.]+) (\w+)\((.*)$")


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed (make peers)")
@pytest.mark.skipif(os.geteuid() != 0, reason="tracing the services needs root")
def test_no_250_before_the_sync(tmp_path: Path) -> None:
    with running("message_size_limit = 50000000") as instance:
        with Client(instance.port) as warm:  # start the workers
            warm.reply()
            warm.ask(b"EHLO client.example")
            assert warm.send(b"a@test.example", [b"x@discard.test"], b"Subject: warm\r\n\r\nx").startswith(b"250")
        trace = tmp_path / "trace"
        pids = instance.pids("smtpd") + instance.pids("cleanup")
        assert len(pids) >= 2
        tracer = subprocess.Popen(
            ["strace", "-f", "-ttt", "-s", "200000", "-x", "-o", str(trace),
             "-e", "trace=writev,write,pwrite64,fdatasync,fsync,sendto,rename", *[w for p in pids for w in ("-p", str(p))]],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert tracer.stderr is not None
        for _ in pids:
            assert "attached" in tracer.stderr.readline()
        acknowledged = []
        for number in range(20):
            with Client(instance.port) as client:
                client.reply()
                client.ask(b"EHLO client.example")
                body = b"x" * (300000 if number % 5 == 4 else 100)
                if number % 2:
                    reply = client.send(b"a@test.example", [b"x@discard.test"], b"Subject: %d\r\n\r\n" % number + body)
                else:
                    client.ask(b"MAIL FROM:<a@test.example>")
                    client.ask(b"RCPT TO:<x@discard.test>")
                    data = b"Subject: %d\r\n\r\n" % number + body + b"\r\n"
                    client.socket.sendall(b"BDAT %d LAST\r\n" % len(data) + data)
                    reply = client.reply()
                assert reply.startswith(b"250 2.0.0 Ok: ") and b"queued as " in reply, reply
                acknowledged.append(reply.split()[-1].decode())
        tracer.send_signal(signal.SIGINT)
        tracer.wait(20)
        tracer.stderr.close()
        wait_for(instance.queue_is_empty, what="an empty queue")
    check_order(trace.read_text(errors="replace"), acknowledged)


def check_order(trace: str, acknowledged: list[str]) -> None:
    """For each queue id: its record is written, then a sync returns, and only then the 250 is sent."""
    written: dict[str, int] = {}
    synced: dict[str, int] = {}
    replied: dict[str, int] = {}
    unfinished: set[str] = set()
    for number, line in enumerate(trace.splitlines()):
        process = line.split()[0]
        text = decode(line) if "queued as" in line or "\\x" in line else line
        for queue_id in acknowledged:
            if queue_id in text:
                if "sendto(" in line and "queued as" in text:
                    replied.setdefault(queue_id, number)
                elif re.search(r" (writev|write|pwrite64)\(", line) and b"TF1".decode() in text:
                    written.setdefault(queue_id, number)
        done = False
        if re.search(r" f(data)?sync\(\d+\)\s+= 0", line):
            done = True
        elif re.search(r" f(data)?sync\(\d+ <unfinished", line):
            unfinished.add(process)
        elif process in unfinished and re.search(r"<\.\.\. f(data)?sync resumed>.*= 0", line):
            unfinished.discard(process)
            done = True
        if done:
            for queue_id, at in written.items():
                if at < number:
                    synced.setdefault(queue_id, number)
    for queue_id in acknowledged:
        assert queue_id in replied, f"no 250 seen for {queue_id}"
        assert queue_id in synced, f"no sync seen for {queue_id}"
        assert written[queue_id] < synced[queue_id] < replied[queue_id]


def decode(line: str) -> str:
    """strace's quoting undone, well enough to look for names."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), line)


def test_the_checker_sees_a_250_that_comes_too_early() -> None:
    early = (
        '1 1.0 writev(5, [{iov_base="\\xe5TF1 ABC123", iov_len=9}], 1) = 9\n'
        '2 1.1 sendto(9, "250 2.0.0 Ok: queued as ABC123\\r\\n", 32, 0, NULL, 0) = 32\n'
        "1 1.2 fdatasync(5) = 0\n"
    )
    with pytest.raises(AssertionError):
        check_order(early, ["ABC123"])
