"""postkick(1) and postlock(1): what they do, and what they say when they cannot."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

from support.instance import Client, running, wait_for


def test_postkick() -> None:
    """A queue run is asked for; without the system it says so."""
    settings = "transport_maps = inline:{ { late.test = smtp:[127.0.0.1]:1 } }\nminimal_backoff_time = 1000s\nmaximal_backoff_time = 2000s\nqueue_run_delay = 1000s\n"
    with running(settings) as instance:
        with Client(instance.port) as client:
            client.reply()
            client.ask(b"EHLO x")
            assert client.send(b"a@test.example", [b"x@late.test"], b"\r\nx").startswith(b"250 ")
        instance.wait_log(r"to=<x@late.test>.*status=deferred")
        done = instance.command("postkick", "public", "qmgr", "FA")  # F: deferred mail, too; A: forget dead destinations
        assert (done.returncode, done.stderr) == (0, "")
        instance.wait_log(r"to=<x@late.test>.*status=deferred", count=2)
        nobody = instance.command("postkick", "private", "nosuch", "W")
        assert nobody.returncode == 1
        assert "Cannot contact class private service nosuch - perhaps the mail system is down" in nobody.stderr
        assert instance.command("postkick", "public").returncode == 1


def test_postlock(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text("deliver_lock_attempts = 2\ndeliver_lock_delay = 1s\nmailbox_delivery_lock = dotlock, fcntl\n")
    box = tmp_path / "box"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "estafeta.commands.postlock", "-c", str(tmp_path), *arguments],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip

    held = run(str(box), "sh", "-c", f"test -e {box}.lock && echo locked; exit 3")
    assert (held.returncode, held.stdout) == (3, "locked\n")
    assert box.exists() and not (tmp_path / "box.lock").exists()
    (tmp_path / "box.lock").touch()
    busy = run(str(box), "true")
    assert busy.returncode == 75 and "unable to lock for exclusive access" in busy.stderr
    (tmp_path / "box.lock").unlink()
    with open(box, "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert run("-l", "flock", str(box), "true").returncode == 75
        assert run("-l", "dotlock", str(box), "true").returncode == 0
    assert run(str(box)).returncode == 75
    assert 'unknown mailbox_delivery_lock value "foo" in "foo"' in run("-l", "foo", str(box), "true").stderr
    missing = run(str(box), "no-such-command")
    assert missing.returncode == 1 and "execvp no-such-command: No such file or directory" in missing.stderr
    assert run("/no/such/dir/box", "true").returncode == 75
    wait_for(lambda: not (tmp_path / "box.lock").exists(), what="no lock is left")
