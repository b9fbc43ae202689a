"""A long deferred queue does not slow new mail down, and a flush goes through it within the active limit."""

from __future__ import annotations

import os
import subprocess
import threading
import time
import zlib

import pytest

from estafeta.ipc.messages import Envelope, Recipient
from estafeta.spool import layout
from estafeta.spool.journal import write_all
from estafeta.spool.record import message_head
from support.instance import Client, Instance, running, wait_for

MANY = 20000
NEW = 500
CONTENT = b"Subject: deferred\r\n\r\nbody\r\n"


def defer_many(instance: Instance, count: int, when: float) -> None:
    """Messages as the queue manager leaves them, for discard.test; not synced."""
    crc = zlib.crc32(CONTENT)
    for number in range(count):
        due = when + number % 3000
        queue_id = f"{0xABC0000000 + number:X}"
        envelope = Envelope(queue_id, time.time(), b"a@test.example", [Recipient(b"x@discard.test")], next_try_at=due)
        directory = instance.spool / "deferred" / layout.bucket_name(due)
        if number < 3000:
            directory.mkdir(exist_ok=True, mode=0o700)
            os.chown(directory, instance.uid, instance.gid)
        path = directory / queue_id
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        write_all(fd, [message_head(envelope, len(CONTENT), crc), CONTENT])
        os.utime(fd, (due, due))
        os.fchown(fd, instance.uid, instance.gid)
        os.close(fd)


def seconds_for_new_mail(instance: Instance) -> float:
    """From the first connect until all are delivered."""
    done = len(instance.mailbox("new"))

    def send(count: int) -> None:
        with Client(instance.port) as client:
            client.reply()
            client.ask(b"EHLO client.example")
            for _ in range(count):
                assert client.send(b"a@test.example", [b"new@box.test"], b"Subject: n\r\n\r\nbody").startswith(b"250")

    start = time.monotonic()
    threads = [threading.Thread(target=send, args=(NEW // 5,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    new = instance.mail / "new" / "new"
    wait_for(lambda: len(os.listdir(new)) >= done + NEW, 30, "all new mail")
    return time.monotonic() - start


@pytest.mark.timeout(100)
def test_new_mail_beside_a_long_queue() -> None:
    with running("queue_run_delay = 1s\nqmgr_message_active_limit = 2000\n") as instance:
        seconds_for_new_mail(instance)  # everything is started and warm
        empty = min(seconds_for_new_mail(instance) for _ in range(2))
        instance.stop()
        defer_many(instance, MANY, time.time() + 3600)
        start = time.monotonic()
        instance.start()
        assert time.monotonic() - start < 5
        long = min(seconds_for_new_mail(instance) for _ in range(2))
        print(f"{NEW} messages: {empty:.2f} s with an empty queue, {long:.2f} s beside {MANY} deferred")
        assert long < empty * 2 + 0.5
        most = 0
        finished = threading.Event()

        def watch() -> None:
            nonlocal most
            while not finished.is_set():
                listing = instance.command("postqueue", "-p").stdout
                most = max(most, listing.count("*"))
                time.sleep(0.3)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            assert instance.command("postqueue", "-f").returncode == 0
            deferred = str(instance.spool / "deferred")

            def left() -> int:
                found = subprocess.run(["find", deferred, "-type", "f", "-printf", "."], capture_output=True, check=False)
                return len(found.stdout)

            wait_for(lambda: left() == 0, 40, "the flush to end")
        finally:
            finished.set()
            watcher.join()
        assert most <= 2000
