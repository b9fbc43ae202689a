"""``make bench``: the figures of docs/performance.md. Needs root, Debian's Postfix (``make peers``), and some quiet.

Usage: python -m bench [--rounds N] [--quick] [scenario ...]
Every comparison runs Postfix and Estafeta in alternation; the ratio shown is the median over the rounds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

from bench.extras import idle_memory, idle_sessions, latency, postmap_million, start_and_commands
from bench.measure import Rate, load
from bench.mta import Mta
from bench.variants import checks, patterns, plain

# name: (recipient, size, messages, kept connections, sessions, sources)
LOADS = {
    "discard kept": ("x@discard.bench", 4096, 6000, True, 20, 1),
    "discard one": ("x@discard.bench", 4096, 4000, False, 20, 1),
    "sink kept": ("x@sink.bench", 4096, 4000, True, 20, 1),
    "sink one": ("x@sink.bench", 4096, 3000, False, 20, 1),
    "maildir kept": ("x@box.bench", 4096, 4000, True, 20, 1),
    "maildir one": ("x@box.bench", 4096, 3000, False, 20, 1),
    "discard 100 KB": ("x@discard.bench", 102400, 1500, True, 20, 1),
    "sink 100 KB": ("x@sink.bench", 102400, 1500, True, 20, 1),
    "maildir 100 KB": ("x@box.bench", 102400, 1500, True, 20, 1),
    "discard 5 MB": ("x@discard.bench", 5242880, 40, True, 5, 1),
    "sink 5 MB": ("x@sink.bench", 5242880, 40, True, 5, 1),
    "maildir 5 MB": ("x@box.bench", 5242880, 40, True, 5, 1),
    "discard 1000 sessions": ("x@discard.bench", 4096, 6000, True, 1000, 10),
    "200 patterns kept": ("x@discard.bench", 4096, 4000, True, 20, 1),
    "200 patterns one": ("x@discard.bench", 4096, 3000, False, 20, 1),
    "checks kept": ("x@discard.bench", 4096, 4000, True, 20, 1),
    "checks one": ("x@discard.bench", 4096, 3000, False, 20, 1),
}
VARIANTS = {"200 patterns": patterns, "checks": checks}
"""Scenarios with a configuration of their own, by the beginning of their names; all others share one."""
EXTRAS = ("latency", "memory", "idle", "postmap", "commands")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a third of the messages, two rounds")
    parser.add_argument("scenario", nargs="*", help="words that the names of scenarios must contain")
    options = parser.parse_args()
    if os.geteuid() or not shutil.which("smtp-source"):
        raise SystemExit("bench: needs root and Debian's postfix package (make peers)")
    base = Path(tempfile.mkdtemp(prefix="estafeta-bench-"))
    base.chmod(0o755)
    sink_port = 25990
    sink = subprocess.Popen(["smtp-sink", "-u", "nobody", f"127.0.0.1:{sink_port}", "4096"], stdout=subprocess.DEVNULL)
    names = [name for name in (*LOADS, *EXTRAS) if wanted(name, options.scenario)]
    print(f"{'scenario':24} {'postfix/s':>10} {'estafeta/s':>11} {'ratio':>6} {'cpu us':>8} {'cpu us':>8} {'cpu %':>6}", flush=True)
    try:
        for variant, make in ((None, plain), *VARIANTS.items()):
            mine = [name for name in names if variant == next((v for v in VARIANTS if name.startswith(v)), None)]
            if mine:
                with make(base / (variant or "plain").replace(" ", ""), sink_port) as both:
                    run(both, options.rounds, options.quick, mine)
    finally:
        sink.terminate()
        sink.wait()
        shutil.rmtree(base)


def wanted(name: str, words: list[str]) -> bool:
    return not words or any(word in name for word in words)


def run(both: list[Mta], rounds: int, quick: bool, names: list[str]) -> None:
    for name, (recipient, size, messages, kept, sessions, sources) in LOADS.items():
        if name not in names:
            continue
        if quick:
            messages = max(sessions * 2, messages // 3)
        results: dict[str, list[Rate]] = {mta.name: [] for mta in both}
        for turn in range(min(rounds, 2) if quick else rounds):
            for mta in both if turn % 2 == 0 else reversed(both):
                results[mta.name].append(
                    load(mta, recipient, messages=messages, size=size, kept=kept, sessions=sessions, sources=sources)
                )
        theirs, ours = results["postfix"], results["estafeta"]
        ratio = statistics.median(o.per_second / t.per_second for o, t in zip(ours, theirs, strict=True))
        cpu = statistics.median(o.cpu_us / t.cpu_us for o, t in zip(ours, theirs, strict=True))
        print(
            f"{name:24} {statistics.median(t.per_second for t in theirs):10.0f} "
            f"{statistics.median(o.per_second for o in ours):11.0f} {ratio:6.2f} "
            f"{statistics.median(t.cpu_us for t in theirs):8.0f} {statistics.median(o.cpu_us for o in ours):8.0f} {cpu * 100:5.0f}%",
            flush=True,
        )
    extras = {
        "latency": latency, "memory": idle_memory, "idle": idle_sessions, "postmap": postmap_million,
        "commands": start_and_commands,
    }  # fmt: skip
    for name in EXTRAS:
        if name in names:
            extras[name](both)


if __name__ == "__main__":
    main()
