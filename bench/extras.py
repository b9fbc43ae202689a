"""Latency, memory, idle sessions, postmap, start-up."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.measure import load, one_message_s
from bench.mta import Mta


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def latency(both: list[Mta]) -> None:
    """One message at a time on an idle system."""
    times: dict[str, list[float]] = {mta.name: [] for mta in both}
    for mta in both:
        for _ in range(20):
            one_message_s(mta)
    for _ in range(300):
        for mta in both:
            times[mta.name].append(one_message_s(mta))
            time.sleep(0.01)
    for name, values in times.items():
        print(f"latency {name:16} median {statistics.median(values) * 1e3:.2f} ms, 99th percentile "
              f"{percentile(values, 0.99) * 1e3:.2f} ms", flush=True)  # fmt: skip


def idle_memory(both: list[Mta]) -> None:
    """Memory a while after start, everything started once."""
    for mta in both:
        print(f"memory {mta.name:17} {mta.memory_bytes() / 1e6:.1f} MB in {len(mta.pids())} processes", flush=True)


def idle_sessions(both: list[Mta], count: int = 5000) -> None:
    """Idle SMTP sessions while mail flows (Estafeta only: Postfix would need a process for each)."""
    base, estafeta = both[1].top.parent, Mta("estafeta-idle", both[1].top.parent, 25903, 25990, process_limit=count + 200)
    _ = base
    estafeta.start()
    links: list[socket.socket] = []
    try:
        before_rate = load(estafeta, "x@discard.bench", messages=4000, size=4096, kept=True, sessions=20)
        before = estafeta.memory_bytes()
        for number in range(count):
            link = socket.socket()
            link.bind((f"127.0.0.{2 + number // 2500}", 0))
            link.connect(("127.0.0.1", estafeta.port))
            links.append(link)
            if link.recv(200)[:3] != b"220":
                raise SystemExit("no greeting")
            link.sendall(b"EHLO idle.example\r\n")
            link.recv(1000)
        held = estafeta.memory_bytes() - before
        during = load(estafeta, "x@discard.bench", messages=4000, size=4096, kept=True, sessions=20)
        print(f"idle {count} sessions: {held / count / 1e3:.1f} KB each; mail flows at {during.per_second:.0f}/s "
              f"({before_rate.per_second:.0f}/s without them)", flush=True)  # fmt: skip
    finally:
        for link in links:
            link.close()
        estafeta.stop()


def postmap_million(both: list[Mta]) -> None:
    """postmap of a million lines."""
    source = both[0].top / "million"
    with open(source, "w", encoding="ascii") as stream:
        stream.writelines(f"user{number}@example{number % 1000}.com mailbox{number}\n" for number in range(1000000))
    times: dict[str, list[float]] = {"postfix": [], "estafeta": []}
    for _ in range(3):
        for mta in both:
            program = ["/usr/sbin/postmap"] if mta.name == "postfix" else [sys.executable, "-m", "estafeta.commands.postmap"]
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{source}.db")
            begun = time.monotonic()
            subprocess.run([*program, "-c", str(mta.etc), f"hash:{source}"], check=True)
            times[mta.name].append(time.monotonic() - begun)
    for name, values in times.items():
        print(f"postmap {name:16} {statistics.median(values):.2f} s for a million lines", flush=True)


def start_and_commands(both: list[Mta]) -> None:
    """postfix start until it listens; sendmail and mailq until they are back."""
    mta = both[1]
    starts = []
    for _ in range(5):
        mta.stop()
        starts.append(mta.start())
    print(f"start estafeta            {statistics.median(starts):.2f} s until postfix start is back", flush=True)
    bin_directory = Path(sys.executable).parent
    environment = {**os.environ, "MAIL_CONFIG": str(mta.etc)}
    for name, arguments, text in (("mailq", [], b""), ("sendmail", ["-f", "a@bench.example", "x@discard.bench"], b"Subject: x\n\nx\n")):
        values = []
        for _ in range(20):
            begun = time.monotonic()
            subprocess.run([str(bin_directory / name), *arguments], env=environment, input=text, capture_output=True, check=True)
            values.append(time.monotonic() - begun)
        print(f"{name:8} estafeta         {statistics.median(values) * 1e3:.0f} ms (slowest {max(values) * 1e3:.0f} ms)", flush=True)
