"""One measurement: load from smtp-source, the end seen in the log, CPU from /proc."""

from __future__ import annotations

import socket
import subprocess
import time
from dataclasses import dataclass

from bench.mta import Mta


@dataclass
class Rate:
    """Messages per second end to end, and CPU microseconds a message of the system under test."""

    per_second: float
    cpu_us: float


def count_sent(mta: Mta, position: int) -> tuple[int, int]:
    """How many deliveries the log shows behind ``position``, and where it ends now."""
    with open(mta.log, "rb") as stream:
        stream.seek(position)
        data = stream.read()
    end = data.rfind(b"\n") + 1
    return data[:end].count(b", status=sent ("), position + end


def load(mta: Mta, recipient: str, *, messages: int, size: int, kept: bool, sessions: int, sources: int = 1) -> Rate:
    """Send and wait until everything is delivered."""
    mta.clear()
    cpu = mta.cpu_seconds()
    each = messages // sources
    command = ["smtp-source", *(["-d"] if kept else []), "-s", str(sessions // sources), "-m", str(each), "-l", str(size),
               "-M", "client.bench", "-f", "load@bench.example", "-t", recipient, f"127.0.0.1:{mta.port}"]  # fmt: skip
    begun = time.monotonic()
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(sources)]
    position = sent = 0
    for source in running:
        if source.wait(300):
            raise SystemExit(f"smtp-source failed against {mta.name}")
    deadline = time.monotonic() + 60 + messages / 50
    while sent < each * sources:
        found, position = count_sent(mta, position)
        sent += found
        if time.monotonic() > deadline:
            raise SystemExit(f"{mta.name}: {sent} of {each * sources} delivered")
        if sent < each * sources:
            time.sleep(0.01)
    elapsed = time.monotonic() - begun
    return Rate(each * sources / elapsed, (mta.cpu_seconds() - cpu) / (each * sources) * 1e6)


def one_message_s(mta: Mta, size: int = 4096) -> float:
    """Seconds from connect to the 250 after DATA of one message."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", mta.port)) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = link.makefile("rb")

        def ask(data: bytes) -> None:
            if data:
                link.sendall(data)
            while (line := stream.readline())[3:4] == b"-":
                pass
            if line[:1] not in b"23":
                raise SystemExit(f"{mta.name}: {line!r}")

        ask(b"")
        ask(b"EHLO bench.example\r\n")
        ask(b"MAIL FROM:<load@bench.example>\r\n")
        ask(b"RCPT TO:<x@discard.bench>\r\n")
        ask(b"DATA\r\n")
        ask(b"Subject: x\r\n\r\n" + b"x" * (size - 20) + b"\r\n.\r\n")
        elapsed = time.monotonic() - begun
        link.sendall(b"QUIT\r\n")
        stream.readline()
        stream.close()
    return elapsed
