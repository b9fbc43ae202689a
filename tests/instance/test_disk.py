"""A full disk gives 452 and loses nothing; a torn or damaged segment yields its whole messages and reports the rest."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from estafeta.spool import scan
from support.instance import Client, Instance, wait_for


@contextlib.contextmanager
def small_disk(megabytes: int) -> Iterator[str]:
    """A file system of its own, too small."""
    directory = tempfile.mkdtemp(prefix="estafeta-disk-")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True)
        os.rmdir(directory)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a small file system needs root")
@pytest.mark.parametrize("size", [20000, 400000])
def test_full_disk(size: int) -> None:
    with small_disk(6) as disk:
        settings = (
            f"message_size_limit = 500000\nqueue_directory = {disk}/spool\ndefer_transports = discard\nqueue_minfree = 750000\nnotify_classes =\n"
        )
        instance = Instance(settings)
        instance.spool = Path(disk) / "spool"
        try:
            instance.start()
            acknowledged, refused = fill(instance, size)
            assert refused
            assert set(refused) <= {b"452 4.3.1 Insufficient system storage\r\n"}
            wait_for(lambda: queued(instance) >= set(acknowledged), what="every acknowledged message in the queue")
            assert queued(instance) == set(acknowledged)
            # Room again: mail is taken again.
            instance.write("master.cf", (instance.etc / "master.cf").read_text())
            instance.command("postfix", "stop")
            text = (instance.etc / "main.cf").read_text().replace("defer_transports = discard", "defer_transports =")
            instance.write("main.cf", text)
            instance.start()
            wait_for(instance.queue_is_empty, what="an empty queue")
            for queue_id in acknowledged:
                assert f"{queue_id}: removed" in instance.log()
            with Client(instance.port) as client:
                client.reply()
                client.ask(b"EHLO x")
                assert client.send(b"a@test.example", [b"x@discard.test"], b"Subject: y\r\n\r\n").startswith(b"250")
            instance.stop()
        finally:
            for pid in instance.processes():
                os.kill(pid, 9)
            instance.remove()


def fill(instance: Instance, size: int) -> tuple[list[str], list[bytes]]:
    """Send until the disk is full; queue ids that were acknowledged, and the refusals."""
    acknowledged: list[str] = []
    refused: list[bytes] = []
    with Client(instance.port) as client:
        client.reply()
        client.ask(b"EHLO x")
        while len(refused) < 3:
            reply = client.send(b"a@test.example", [b"x@discard.test"], b"Subject: x\r\n\r\n" + b"y" * size)
            if reply.startswith(b"250"):
                acknowledged.append(reply.split()[-1].decode())
            else:
                refused.append(reply)
                client.ask(b"RSET")
            assert len(acknowledged) < 1000
    return acknowledged, refused


def queued(instance: Instance) -> set[str]:
    """The queue ids that are anywhere in the queue."""
    return {q.envelope.queue_id for name in ("incoming", "deferred") for q in scan.list_queue(str(instance.spool), name)}


def test_damaged_and_torn_segments() -> None:
    """Three segments as a crash may leave them: torn at the end, damaged in the middle, and nothing but garbage."""
    instance = Instance()
    try:
        instance.start()
        text = (instance.etc / "main.cf").read_text() + "defer_transports = discard\n"
        with Client(instance.port) as client:
            client.reply()
            client.ask(b"EHLO x")
            client.send(b"a@test.example", [b"x@discard.test"], b"Subject: warm\r\n\r\n")
        wait_for(instance.queue_is_empty, what="an empty queue")
        instance.stop()
        incoming = instance.spool / "incoming"
        records = make_records(instance)
        middle = bytearray(records[1])
        middle[-3] ^= 0xFF
        (incoming / "seg-1-1-1").write_bytes(records[0] + bytes(middle) + records[2])
        (incoming / "seg-2-2-2").write_bytes(records[3] + records[4][:-5])
        (incoming / "seg-3-3-3").write_bytes(b"nothing of ours")
        for path in incoming.iterdir():
            os.chown(path, instance.uid, instance.gid)
        instance.write("main.cf", text.replace("defer_transports = discard\n", ""))
        instance.start()
        for number in (0, 2, 3):
            instance.wait_log(f"AAAA{number:03d}: removed")
        log = "\n".join(instance.wait_log(r"seg-\d-\d-\d: damaged at \d+ for \d+ bytes, saved as corrupt/\S+", count=3))
        assert "AAAA001" not in instance.log()
        assert "AAAA004" not in instance.log()
        assert (instance.spool / "corrupt" / f"seg-1-1-1.{len(records[0])}").read_bytes() == bytes(middle)
        assert "seg-2-2-2" in log
        wait_for(lambda: not [n for n in os.listdir(incoming) if n.startswith("seg-")], what="segments removed")
        instance.stop()
    finally:
        for pid in instance.processes():
            os.kill(pid, 9)
        instance.remove()


def make_records(instance: Instance) -> list[bytes]:
    """Five whole message records."""
    from zlib import crc32

    from estafeta.ipc.messages import Envelope, Recipient
    from estafeta.spool.record import message_head

    records = []
    for number in range(5):
        content = b"Subject: %d\r\n\r\nbody\r\n" % number
        envelope = Envelope(f"AAAA{number:03d}", 1e9 + 1e9, b"", [Recipient(b"x@discard.test")], len(content))
        records.append(message_head(envelope, len(content), crc32(content)) + content)
    return records
