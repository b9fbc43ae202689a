"""kill -9 of pickup, local, smtp, bounce and qmgr under load, postsuper and postfix stop in the middle: nothing is lost."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from estafeta.mail import maildrop
from estafeta.spool import maildrop as drop
from support.instance import MASTER_CF, Client, Instance, running, wait_for
from support.load import Load, check, tags_in
from support.smtp_sink import SmtpSink
from support.smtp_sink_thread import SinkThread

SOON = "minimal_backoff_time = 1s\nmaximal_backoff_time = 1s\nqueue_run_delay = 1s\n"


def smtp_sender(
    instance: Instance, recipient: Callable[[str], bytes], sender: bytes = b"load@test.example"
) -> Callable[[str], bool]:
    """One message over SMTP, true if it was acknowledged."""

    def send(tag: str) -> bool:
        content = f"Subject: t\r\nX-Tag: {tag}\r\n\r\n".encode() + b"From z\r\n" * 40
        try:
            with Client(instance.port, timeout_s=5.0) as client:
                if not client.reply().startswith(b"220"):
                    return False
                client.ask(b"EHLO load.example")
                return client.send(sender, [recipient(tag)], content).startswith(b"250")
        except OSError:
            time.sleep(0.02)
            return False

    return send


def submitter(instance: Instance, recipient: Callable[[str], bytes]) -> Callable[[str], bool]:
    """One message as sendmail(1) submits it, by the socket or the directory in turn."""
    spool = str(instance.spool)

    def send(tag: str) -> bool:
        content = f"Subject: t\r\nX-Tag: {tag}\r\n\r\nbody\r\n".encode()
        data = maildrop.encode(maildrop.Submission(b"load@test.example", [recipient(tag)], content, time.time(), os.getuid()))
        try:
            if hash(tag) % 2:
                drop.submit(spool, data)
            else:
                drop.hand_to_pickup(spool, data)
        except drop.SubmitError:
            time.sleep(0.02)
            return False
        return True

    return send


def kill_under_load(instance: Instance, victims: tuple[str, ...], kills: int, seconds: float) -> Counter[str]:
    """Kill until there were ``kills`` kills; how often each victim was hit."""
    chooser = random.Random(11)
    counts: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    done = 0
    while done < kills and time.monotonic() < deadline:
        time.sleep(chooser.uniform(0.05, 0.25))
        victim = chooser.choice(victims)
        killed = instance.kill(victim)
        counts[victim] += killed
        done += killed > 0
    assert done >= kills // 2, counts
    return counts


def with_loads(senders: list[Callable[[str], bool]], scene: Callable[[], None], pause_s: float = 0.01) -> set[str]:
    """Run ``scene`` while all senders send; everything that was acknowledged."""
    loads = [Load(f"load{number}", send, pause_s) for number, send in enumerate(senders)]
    for load in loads:
        load.start()
    try:
        scene()
    finally:
        acknowledged = set().union(*(load.finish() for load in loads))
    assert len(acknowledged) > 50
    return acknowledged


def maildir_texts(instance: Instance) -> list[bytes]:
    return [path.read_bytes() for user in range(1, 4) for path in instance.mailbox(f"u{user}")]


def to_box(tag: str) -> bytes:
    return b"u%d@box.test" % (hash(tag) % 3 + 1)


def test_pickup() -> None:
    with running(SOON) as instance:
        hits: Counter[str] = Counter()
        acknowledged = with_loads(
            [submitter(instance, to_box)] * 2,
            lambda: hits.update(kill_under_load(instance, ("pickup", "pickup", "cleanup"), 15, 10)),
        )
        instance.command("postqueue", "-f")
        wait_for(lambda: not drop.names(str(instance.spool)) and instance.queue_is_empty(), 30, "an empty queue")
        assert hits["pickup"] > 3
        check(acknowledged, tags_in(maildir_texts(instance)), hits.total())


def test_local(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("local(8) delivers to somebody only when it is root")
    user = pwd.getpwnam("nobody").pw_name
    where = Path("/tmp") / f"estafeta-local-{os.getpid()}-{time.time_ns()}"
    where.mkdir(mode=0o755)
    owned = where / "owned"
    owned.mkdir()
    shutil.chown(owned, "nobody", "nogroup")
    settings = (
        f"{SOON}mydestination = local.test\nlocal_recipient_maps =\nallow_mail_to_files = alias,forward\n"
        f"alias_maps = inline:{{ {{ tofile = {owned}/file }}, {{ todir = {owned}/dir/ }} }}\n"
        f"mail_spool_directory = {owned}/spool/\nmailbox_delivery_lock = fcntl, dotlock\n"
        "stale_lock_time = 1s\ndeliver_lock_delay = 1s\n"
    )
    (owned / "spool").mkdir()
    shutil.chown(owned / "spool", "nobody", "nogroup")
    targets = (b"tofile@local.test", b"todir@local.test", user.encode() + b"@local.test")
    try:
        with running(settings) as instance:
            hits: Counter[str] = Counter()
            acknowledged = with_loads(
                [smtp_sender(instance, lambda tag: targets[hash(tag) % 3])] * 3,
                lambda: hits.update(kill_under_load(instance, ("local",), 15, 10)),
            )
            wait_for(instance.queue_is_empty, 40, "an empty queue")
            files = [path for path in owned.rglob("*") if path.is_file() and path.name != "file.lock"]
            texts = [path.read_bytes() for path in files]
            for path in files:
                if path.name == "file":
                    text = path.read_bytes()
                    assert text.startswith(b"From load@test.example  ")
            assert any(path.name == "file" for path in files) and len(files) > 10
            check(acknowledged, tags_in(texts), hits.total())
    finally:
        shutil.rmtree(where)


def test_smtp_agent() -> None:
    with SinkThread(SmtpSink()) as sink:
        settings = f"{SOON}transport_maps = inline:{{ {{ out.test = smtp:[127.0.0.1]:{sink.port} }} }}\n"
        with running(settings) as instance:
            hits: Counter[str] = Counter()
            acknowledged = with_loads(
                [smtp_sender(instance, lambda _: b"x@out.test")] * 3,
                lambda: hits.update(kill_under_load(instance, ("smtp", "smtp", "qmgr"), 15, 10)),
            )
            wait_for(instance.queue_is_empty, 40, "an empty queue")
            check(acknowledged, tags_in(sink.contents), hits.total())


def test_pipe() -> None:
    """Commands that store the message: killed agents run them again, nothing is lost."""
    me = pwd.getpwnam("daemon" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name)
    where = Path("/tmp") / f"estafeta-pipe-{os.getpid()}-{time.time_ns()}"
    where.mkdir(mode=0o755)
    (where / "out").mkdir()
    (where / "out").chmod(0o777)
    script = where / "store"
    script.write_text(f"#!/bin/sh\ncat > {where}/out/tmp.$$ && mv {where}/out/tmp.$$ {where}/out/$1.$$\n")
    script.chmod(0o755)
    line = f"store unix - n n - 4 pipe flags=Rq user={me.pw_name} argv={script} ${{queue_id}}\n"
    try:
        with running(f"{SOON}transport_maps = inline:{{ {{ out.test = store: }} }}\n", MASTER_CF + line) as instance:
            hits: Counter[str] = Counter()
            acknowledged = with_loads(
                [smtp_sender(instance, lambda _: b"x@out.test")] * 2,
                lambda: hits.update(kill_under_load(instance, ("pipe",), 10, 8)),
            )
            wait_for(instance.queue_is_empty, 60, "an empty queue")
            texts = [path.read_bytes() for path in (where / "out").iterdir() if not path.name.startswith("tmp.")]
            check(acknowledged, tags_in(texts), hits.total())
    finally:
        shutil.rmtree(where)


def test_bounce() -> None:
    """Each sender gets the notice about their message."""
    settings = (
        f"{SOON}transport_maps = inline:{{ {{ bad.test = error:5.1.1 no such user }} }}\n"
        "smtpd_reject_unlisted_recipient = no\n"
    )
    with running(settings) as instance:
        hits: Counter[str] = Counter()
        acknowledged = with_loads(
            [smtp_sender(instance, lambda _: b"x@bad.test", sender=b"u1@box.test")] * 3,
            lambda: hits.update(kill_under_load(instance, ("bounce", "bounce", "cleanup", "error"), 15, 10)),
        )
        wait_for(instance.queue_is_empty, 40, "an empty queue")
        assert hits["bounce"] > 3
        texts = maildir_texts(instance)
        assert all(b"Undelivered Mail Returned to Sender" in text for text in texts)
        check(acknowledged, tags_in(texts), hits.total())


def test_qmgr_while_postsuper_works() -> None:
    """-h, -H, -r, flushes and kills: what was deleted may go, everything else arrives."""
    settings = f"{SOON}transport_maps = inline:{{ {{ del.test = retry:4.0.0 later }} }}\n"
    with running(settings) as instance:
        hits: Counter[str] = Counter()
        ended = threading.Event()
        failures: list[str] = []

        def administer() -> None:
            commands = [("postsuper", "-h", "ALL"), ("postsuper", "-H", "ALL"), ("postqueue", "-f"), ("postsuper", "-r", "ALL")]
            while not ended.is_set():
                for name, *arguments in commands:
                    try:
                        result = instance.command(name, *arguments)
                    except subprocess.TimeoutExpired:
                        failures.append(f"{name} {arguments} hangs")
                        return
                    if "Traceback" in result.stderr:
                        failures.append(result.stderr)

        administrator = threading.Thread(target=administer)
        administrator.start()
        try:
            acknowledged = with_loads(
                [smtp_sender(instance, to_box)] * 2 + [smtp_sender(instance, lambda _: b"x@del.test")],
                lambda: hits.update(kill_under_load(instance, ("qmgr",), 15, 12)),
            )
        finally:
            ended.set()
            administrator.join(60)
        assert not failures, failures[0]
        wait_for(lambda: instance.pids("qmgr"), 10, "a queue manager")
        deleted = {f"load2-{n}" for n in range(100000)}
        wait_for(lambda: instance.command("postsuper", "-H", "ALL").returncode == 0, 20, "postsuper -H")

        def only_the_deferred() -> bool:
            instance.command("postsuper", "-H", "ALL")
            instance.command("postqueue", "-f")
            got = tags_in(maildir_texts(instance))
            return not (acknowledged - deleted - set(got))

        wait_for(only_the_deferred, 40, "everything that is not for del.test")
        check(acknowledged - deleted, tags_in(maildir_texts(instance)), hits.total() + 200)

        def all_deleted() -> bool:
            return instance.command("postsuper", "-d", "ALL").returncode == 0 and instance.queue_is_empty()

        wait_for(all_deleted, 30, "an empty queue")


def test_stop_in_the_middle() -> None:
    with running(SOON) as instance:

        def scene() -> None:
            for _ in range(4):
                time.sleep(0.5)
                instance.stop()
                instance.start()
            time.sleep(0.2)

        acknowledged = with_loads([smtp_sender(instance, to_box)] * 3 + [submitter(instance, to_box)], scene)
        wait_for(lambda: not drop.names(str(instance.spool)) and instance.queue_is_empty(), 40, "an empty queue")
        got = tags_in(maildir_texts(instance))
        check(acknowledged, got, 0, 0)  # a stop is no kill: nothing comes twice


