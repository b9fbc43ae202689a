"""Commands as an ordinary user meets them, memory over many messages, and the promised quickness of the commands."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from support.instance import Instance, running, wait_for

ROOT = Path(__file__).parents[2]


def _as_user(instance: Instance, name: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command as an unprivileged user who is not mail_owner; Python's own directory must be readable for that."""
    code = f"import sys; from estafeta.commands.{name} import main; sys.exit(main())"
    drop = "import os; os.setgroups([]); os.setresgid(4711, 4711, 4711); os.setresuid(4711, 4711, 4711)"
    # Imported before the drop: the interpreter may live where only root can read.
    preload = (
        "import pkgutil, importlib, ipaddress, json, socket, pwd, getopt, estafeta.commands, estafeta.tables, estafeta.spool\n"
        "import estafeta.mail, estafeta.system\n"
        "for place in (estafeta.commands, estafeta.tables, estafeta.spool, estafeta.mail, estafeta.system):\n"
        "    for found in pkgutil.walk_packages(place.__path__, place.__name__ + '.'):\n"
        "        importlib.import_module(found.name)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", f"{preload}\n{drop}; {code}", *arguments],
        env={**os.environ, "MAIL_CONFIG": str(instance.etc), "HOME": "/tmp"}, text=True, input=text, capture_output=True, timeout=60,
        check=False,
    )  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming an ordinary user needs root")
def test_ordinary_user() -> None:
    with running() as instance:
        sent = _as_user(instance, "sendmail", "-f", "me@box.test", "joe@box.test", text="Subject: x\n\nhello\n")
        assert (sent.returncode, sent.stderr) == (0, "")
        wait_for(lambda: instance.mailbox("joe"), what="mail of an ordinary user")
        instance.wait_log(r"pickup\[\d+\]: \w+: uid=4711 from=<me@box.test>")
        listed = _as_user(instance, "mailq")
        assert (listed.returncode, listed.stdout) == (0, "Mail queue is empty\n")
        for command, arguments in (("postsuper", ("-d", "ALL")), ("postfix", ("stop",)), ("postfix", ("reload",))):
            refused = _as_user(instance, command, *arguments)
            assert refused.returncode == 1
            assert "reserved for the superuser" in refused.stderr
        assert instance.master_pid()
        for path in ("incoming", "maildrop", "public/cleanup", "public/qmgr", "active", "deferred"):
            stat = (instance.spool / path).stat()
            assert stat.st_uid == instance.uid and not stat.st_mode & 0o006, path
        assert not (instance.spool / "private").stat().st_mode & 0o077
        assert not (instance.spool / "maildrop").stat().st_mode & 0o007
        assert (instance.log_path).stat().st_mode & 0o022 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming a user without an account needs root")
def test_instance_of_a_user_without_an_account() -> None:
    drop = "import os, grp, pwd, __future__; os.setgroups([]); os.setresgid(4711, 4711, 4711); os.setresuid(4711, 4711, 4711)"
    text = (ROOT / "tools" / "make_instance.py").read_text()
    with tempfile.TemporaryDirectory() as place:  # tmp_path lies where only we may go
        os.chmod(place, 0o777)
        result = subprocess.run(
            [sys.executable, "-c", f"{drop}\nimport sys; exec(sys.stdin.read())", "made", "2599"],
            cwd=place, input=text, text=True, capture_output=True, check=False,
        )  # fmt: skip
        assert (result.returncode, result.stderr) == (0, "")
        assert "mail_owner = 4711\n" in Path(place, "made", "etc", "main.cf").read_text()


@pytest.mark.skipif(shutil.which("smtp-source", path="/usr/sbin:/usr/bin") is None, reason="smtp-source is not installed")
def test_memory_does_not_grow() -> None:
    with running() as instance:
        source = shutil.which("smtp-source", path="/usr/sbin:/usr/bin")

        def send(count: int, *options: str) -> None:
            words = [str(source), *options, "-s", "10", "-m", str(count), "-l", "2000", "-f", "a@b.example", "-t", "x@discard.test"]
            subprocess.run([*words, f"127.0.0.1:{instance.port}"], check=True, timeout=60, capture_output=True)
            wait_for(instance.queue_is_empty, 30, "an empty queue")

        send(600)
        send(600, "-d")
        rounds = []
        for _ in range(3):
            before = _private_kb(instance)
            send(3000, "-d")
            send(1200)
            after = _private_kb(instance)
            rounds.append({title: after[title] - before[title] for title in before if title in after})
            assert rounds[-1]
        # A leak of 400 bytes a message would show in every round; what one round takes to warm up (the books of the current
        # segment, the collector's thresholds) does not come again.
        print(rounds)
        for title in set.intersection(*(set(grown) for grown in rounds)):
            assert min(grown[title] for grown in rounds) < 1500, (title, rounds)
            assert sum(grown[title] for grown in rounds) < 4000, (title, rounds)


def _private_kb(instance: Instance) -> dict[str, int]:
    found = {}
    for pid, title in instance.processes().items():
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        found[f"{title} {pid}"] = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return found


@pytest.mark.parametrize("command", ["sendmail", "mailq", "postqueue", "postmap", "postconf", "newaliases"])
def test_no_heavy_imports(command: str) -> None:
    """What makes a command slow to start: 100 ms is the promise, and this is what breaks it."""
    code = f"import sys, estafeta.commands.{command}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True).stdout.split()
    assert not {"asyncio", "ssl", "msgspec", "uvloop", "subprocess", "logging", "typing_extensions"} & set(loaded)


def test_commands_are_quick() -> None:
    with running() as instance:
        for command, arguments in (("mailq", ()), ("sendmail", ("-f", "a@b.example", "x@discard.test"))):
            taken = []
            for _ in range(5):
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                result = instance.command(command, *arguments, input="\n")
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)  # the machine may be busy
                assert result.returncode == 0, result.stderr
            assert min(taken) < 0.15, taken  # 0.04 on a calm machine; the promise is 0.1
