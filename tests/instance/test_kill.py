"""kill -9 of everything, again and again, under load: each acknowledged message arrives; twice only where it was in flight."""

from __future__ import annotations

import random
import re
import threading
import time
from collections import Counter

import pytest

from support.instance import Client, Instance, running, wait_for

KILLS = 220
VICTIMS = ("smtpd", "cleanup", "qmgr", "virtual", "trivial-rewrite", "master")
IN_FLIGHT_S = 3.0  # a duplicate must have been delivered this close to a kill
SENDERS = 4


class Load(threading.Thread):
    """Sends numbered messages until told to stop; remembers which were acknowledged."""

    def __init__(self, instance: Instance, name: str, stop: threading.Event) -> None:
        super().__init__(name=name)
        self.instance = instance
        self.stop = stop
        self.acknowledged: set[str] = set()

    def run(self) -> None:
        number = 0
        while not self.stop.is_set():
            try:
                with Client(self.instance.port, timeout_s=5.0) as client:
                    if not client.reply().startswith(b"220"):
                        continue
                    client.ask(b"EHLO load.example")
                    for _ in range(random.randint(1, 8)):
                        if self.stop.is_set():
                            break
                        number += 1
                        tag = f"{self.name}-{number}"
                        size = 300000 if number % 23 == 0 else random.randint(10, 6000)
                        content = f"Subject: t\r\nX-Tag: {tag}\r\n\r\n".encode() + b"z" * size
                        user = b"u%d@box.test" % random.randint(1, 5)
                        if client.send(b"load@test.example", [user], content).startswith(b"250"):
                            self.acknowledged.add(tag)
                        time.sleep(0.002)
            except OSError:
                time.sleep(0.02)


def delivered(instance: Instance) -> tuple[Counter[str], dict[str, list[float]]]:
    """How often each tag is in the mailboxes, and when it got there."""
    counts: Counter[str] = Counter()
    times: dict[str, list[float]] = {}
    for user in range(1, 6):
        for path in instance.mailbox(f"u{user}"):
            head = path.read_bytes()[:2000]
            found = re.search(rb"^X-Tag: (\S+)$", head, re.MULTILINE)
            assert found, f"a message without its header: {head!r}"
            tag = found[1].decode()
            counts[tag] += 1
            times.setdefault(tag, []).append(path.stat().st_ctime)
    return counts, times


@pytest.mark.timeout(280)
def test_kill_everything_under_load() -> None:
    settings = "max_idle = 5s\nsmtpd_timeout = 10s\nmessage_size_limit = 1000000\n"
    with running(settings) as instance:
        stop = threading.Event()
        loads = [Load(instance, f"load{n}", stop) for n in range(SENDERS)]
        for load in loads:
            load.start()
        chooser = random.Random(7)
        kills: list[float] = []
        counts: Counter[str] = Counter()
        deadline = time.monotonic() + 150
        try:
            while len(kills) < KILLS and time.monotonic() < deadline:
                time.sleep(chooser.uniform(0.02, 0.25))
                victim = chooser.choices(VICTIMS, weights=(4, 4, 4, 4, 1, 1))[0]
                killed = instance.kill(victim)
                if killed:
                    kills.append(time.time())
                    counts[victim] += killed
                if victim == "master" and killed:
                    wait_for(lambda: not instance.processes(), 20, "the workers of a dead master end")
                    instance.start()
        finally:
            stop.set()
            for load in loads:
                load.join()
        acknowledged = set().union(*(load.acknowledged for load in loads))
        assert len(kills) >= 100, counts
        assert len(acknowledged) > 500
        for program in VICTIMS:
            assert counts[program], f"{program} was never killed"
        if not instance.master_pid():
            instance.start()
        wait_for(instance.queue_is_empty, 60, "an empty queue")
        got, times = delivered(instance)
        lost = acknowledged - set(got)
        assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged messages lost: {sorted(lost)[:5]}"
        for tag, count in got.items():
            if count > 1:
                assert all(any(abs(at - kill) < IN_FLIGHT_S for kill in kills) for at in times[tag]), tag
        twice = sum(count - 1 for count in got.values())
        assert twice <= len(kills) * 60, "more duplicates than can have been in flight"
        print(f"{len(kills)} kills {dict(counts)}, {len(acknowledged)} acknowledged, {len(got)} arrived, {twice} twice")
