"""kill -9 in the middle of filter round trips: what was acknowledged comes out of the filter, whole.

Two ways in: a before-queue filter (another smtpd of ours stands for it) and a content_filter that goes round by SMTP. Both end in a
pipe(8) command that keeps the message.
"""

from __future__ import annotations

import os
import pwd
import random
import threading
import time
from pathlib import Path

import pytest

from support.instance import MASTER_CF, Client, Instance, wait_for
from support.ports import free_port

KILLS = 25
VICTIMS = ("smtpd", "cleanup", "qmgr", "pipe", "smtp")
KEEP = '#!/bin/sh\ncat > "$1/tmp.$$" && mv "$1/tmp.$$" "$1/done.$$.$(date +%s%N)" || exit 75\n'


class _Sender(threading.Thread):
    """Sends numbered messages to one port; remembers which were acknowledged."""

    def __init__(self, port: int, name: str, stop: threading.Event) -> None:
        super().__init__(name=name)
        self._port = port
        self._stop_event = stop
        self.acknowledged: set[str] = set()

    def run(self) -> None:
        number = 0
        while not self._stop_event.is_set():
            try:
                with Client(self._port, timeout_s=10.0) as client:
                    client.reply()
                    client.ask(b"EHLO load.example")
                    for _ in range(3):
                        number += 1
                        tag = f"{self.name}-{number}"
                        size = 400000 if number % 11 == 0 else random.randint(10, 5000)
                        body = b"\r\n".join([b"z" * 70] * (size // 72 + 1))
                        content = f"Subject: t\r\nX-Tag: {tag}\r\n\r\n".encode() + body + f"\r\nEND {tag}".encode()
                        if client.send(b"a@test.example", [b"keep@keep.test"], content).startswith(b"250"):
                            self.acknowledged.add(tag)
            except OSError:
                time.sleep(0.02)


def _kept(directory: Path) -> set[str]:
    """The tags of the messages that came out whole."""
    found = set()
    for path in directory.glob("done.*"):
        last = path.read_bytes().rstrip().rpartition(b"\n")[2]
        if last.startswith(b"END "):
            found.add(last[4:].decode())
    return found


@pytest.mark.parametrize("options", ["", " -o smtpd_proxy_options=speed_adjust"], ids=["at-once", "speed-adjust"])
def test_nothing_is_lost(options: str, tmp_path: Path) -> None:
    before, around, back = free_port(), free_port(), free_port()
    user = "daemon" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    services = f"""\
127.0.0.1:{before} inet n - n - - smtpd -o smtpd_proxy_filter=127.0.0.1:{back}{options}
127.0.0.1:{around} inet n - n - - smtpd -o content_filter=smtp:[127.0.0.1]:{back}
127.0.0.1:{back} inet n - n - - smtpd -o content_filter=keep: -o smtpd_authorized_xforward_hosts=127.0.0.0/8
"""
    instance = Instance("relay_domains = keep.test\n", MASTER_CF + services)
    out = instance.mail / "out"
    out.mkdir()
    out.chmod(0o777)
    script = instance.write("keep", KEEP)
    script.chmod(0o755)
    with (instance.etc / "master.cf").open("a") as file:
        file.write(f"keep unix - n n - - pipe flags=Rq user={user} argv={script} {out}\n")
    stop = threading.Event()
    senders = [_Sender(port, f"s{number}", stop) for number, port in enumerate((before, around))]
    try:
        instance.start()
        for sender in senders:
            sender.start()
        wait_for(lambda: all(sender.acknowledged for sender in senders), 30, f"first messages\n{instance.log()[-2000:]}")
        for number in range(KILLS):
            instance.kill(VICTIMS[number % len(VICTIMS)])
            time.sleep(random.uniform(0.05, 0.3))  # the next kill finds it somewhere else
        stop.set()
        for sender in senders:
            sender.join(60)
        sent = set().union(*(sender.acknowledged for sender in senders))
        assert len(sent) > 10
        wait_for(lambda: sent <= _kept(out), 40, "all acknowledged messages")
        wait_for(instance.queue_is_empty, 60, "an empty queue")
    finally:
        stop.set()
        for sender in senders:
            if sender.ident is not None:
                sender.join(30)
        lost = {tag for sender in senders for tag in sender.acknowledged} - _kept(out)
        if lost:
            print(f"lost: {sorted(lost)[:10]}\n{instance.log()[-3000:]}")
        instance.stop()
        instance.remove()
