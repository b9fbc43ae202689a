"""postfix(1) as an administrator and an init system use it: start, start-fg, status, stop, abort, and starts that must fail."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.instance import MASTER_CF, PROGRAM, Client, Instance, running, wait_for


@pytest.fixture
def stopped() -> Iterator[Instance]:
    instance = Instance()
    yield instance
    instance.stop()
    instance.remove()


def test_start_status_stop(stopped: Instance) -> None:
    assert "is not running" in stopped.command("postfix", "status").stderr
    started = time.monotonic()
    stopped.start()
    taken_s = time.monotonic() - started
    with Client(stopped.port) as client:  # at once: it listens when start has returned
        assert client.reply().startswith(b"220 ")
    assert taken_s < 5.0  # bench measures the promised second; here the machine may be busy
    status = stopped.command("postfix", "status")
    assert (status.returncode, f"PID: {stopped.master_pid()}" in status.stderr) == (0, True)
    again = stopped.command("postfix", "start")
    assert again.returncode == 1
    assert again.stderr == "postfix/postfix-script: fatal: the Postfix mail system is already running\n"
    assert stopped.command("postfix", "stop").returncode == 0
    assert stopped.processes() == {}
    late = stopped.command("postfix", "stop")
    assert (late.returncode, "is not running" in late.stderr) == (1, True)


def test_abort_and_start_after_kill(stopped: Instance) -> None:
    stopped.start()
    assert stopped.command("postfix", "abort").returncode == 0
    wait_for(lambda: not stopped.processes(), 5, "everything gone after abort")
    stopped.start()  # over stale sockets and a stale pid file
    os.kill(stopped.master_pid(), signal.SIGKILL)
    wait_for(lambda: not stopped.master_pid() or stopped.command("postfix", "status").returncode, 5, "the master gone")
    stopped.start()
    with Client(stopped.port) as client:
        client.reply()
        client.ask(b"EHLO x")
        assert client.send(b"a@test.example", [b"joe@box.test"], b"\r\nx").startswith(b"250 ")
    wait_for(lambda: stopped.mailbox("joe"), what="mail after the kill")


def test_port_in_use(stopped: Instance) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", stopped.port))
        other.listen()
        result = stopped.command("postfix", "start")
        assert result.returncode == 1
        assert f"bind 127.0.0.1 port {stopped.port}: Address already in use" in result.stderr
        assert result.stderr.count("\n") == 1
        assert f"{stopped.etc}/master.cf, line 1: " in result.stderr
        wait_for(lambda: not stopped.processes(), 5, "nothing left")
    stopped.start()


def test_start_lets_go_of_what_it_inherited(stopped: Instance) -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    environment = {**os.environ, "MAIL_CONFIG": str(stopped.etc)}
    command = [*PROGRAM, "estafeta.commands.postfix", "start"]
    assert subprocess.run(command, env=environment, close_fds=False, timeout=30, check=False).returncode == 0
    os.close(write_end)
    with open(read_end, "rb") as stream:
        assert stream.read() == b""  # ends although the system goes on
    assert stopped.master_pid()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_start_fg_ends_cleanly(stopped: Instance, number: int) -> None:
    stopped.write("main.cf", (stopped.etc / "main.cf").read_text() + "maillog_file = /dev/stdout\n")
    command = [*PROGRAM, "estafeta.commands.postfix", "-c", str(stopped.etc), "start-fg"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as process:
        try:
            wait_for(lambda: _answers(stopped.port), 10, "a greeting")
            if number == signal.SIGINT:
                os.killpg(process.pid, number)  # Ctrl-C reaches the whole group
            else:
                process.send_signal(number)
            output = process.communicate(timeout=20)[0].decode()
        finally:
            process.kill()
    assert process.returncode == 0, output
    assert "Traceback" not in output and "KeyboardInterrupt" not in output
    assert f"terminating on signal {int(number)}" in output
    wait_for(lambda: not stopped.processes(), 5, "nothing left")


def test_ctrl_c_at_any_moment_of_the_start(stopped: Instance) -> None:
    command = [*PROGRAM, "estafeta.commands.postfix", "-c", str(stopped.etc), "start-fg"]
    for delay_s in (0.0, 0.04, 0.08, 0.12, 0.16):
        stopped.log_path.unlink(missing_ok=True)
        with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
            stopped.wait_log("starting the Postfix mail system")  # the command is done; the master is next
            time.sleep(delay_s)  # not a wait: the moment is what is tested
            os.killpg(process.pid, signal.SIGINT)
            assert b"Traceback" not in process.communicate(timeout=20)[1]
        wait_for(lambda: not stopped.processes(), 5, "nothing left")


def _answers(port: int) -> bool:
    try:
        with Client(port, timeout_s=5) as client:
            return client.reply().startswith(b"220 ")
    except OSError:
        return False


def test_flush_delivers_what_is_deferred() -> None:
    settings = """\
transport_maps = inline:{ { slow.test = smtp:[127.0.0.1]:1 } }
minimal_backoff_time = 1h
maximal_backoff_time = 1h
"""
    with running(settings) as instance:
        with Client(instance.port) as client:
            client.reply()
            client.ask(b"EHLO x")
            assert client.send(b"a@test.example", [b"x@slow.test"], b"\r\nx").startswith(b"250 ")
        instance.wait_log(r"status=deferred")
        wait_for(lambda: list((instance.spool / "deferred").glob("*/*")), what="the message in deferred/")
        assert instance.command("postfix", "flush").returncode == 0
        instance.wait_log(r"status=deferred", count=2)


@pytest.mark.skipif(os.geteuid() != 0, reason="a jail needs root")
def test_every_service_works_in_an_empty_jail() -> None:
    free = ("local", "virtual")  # these refuse a jail, as in Postfix
    lines = []
    for line in MASTER_CF.splitlines():
        fields = line.split()
        fields[4] = "n" if fields[7] in free else "y"
        lines.append(" ".join(fields))
    jailed = [line.split()[7] for line in lines if line.split()[4] == "y"]
    assert len(jailed) > 12
    settings = """\
transport_maps = inline:{ {discard.test = discard:}, {error.test = error:5.1.1 no}, {retry.test = smtp:[127.0.0.1]:1} }
virtual_alias_maps = inline:{ {ali@box.test = x@error.test} }
"""
    with running(settings, "\n".join(lines) + "\n") as instance:
        shutil.rmtree(instance.spool / "etc")  # the start has made copies: it works without them too
        with Client(instance.port) as client:
            client.reply()
            client.ask(b"EHLO x")
            recipients = [b"joe@box.test", b"x@discard.test", b"ali@box.test", b"x@retry.test"]
            assert client.send(b"me@box.test", recipients, b"Subject: x\r\n\r\nx").startswith(b"250 ")
        wait_for(lambda: instance.mailbox("joe"), what="delivery")
        wait_for(lambda: instance.mailbox("me"), what="the bounce")
        instance.wait_log(r"to=<x@discard.test>.*status=sent")
        instance.wait_log(r"to=<x@retry.test>.*status=deferred")
        assert "x@retry.test" in instance.command("mailq").stdout
        assert instance.command("sendmail", "-f", "me@box.test", "ann@box.test", input="\nhello\n").returncode == 0
        wait_for(lambda: instance.mailbox("ann"), what="local submission")
        programs = {title.split()[0]: pid for pid, title in instance.processes().items()}
        for program in ("smtpd", "cleanup", "qmgr", "trivial-rewrite", "bounce", "smtp", "pickup", "showq"):
            assert os.readlink(f"/proc/{programs[program]}/root") == str(instance.spool), program
            assert f"Uid:\t{instance.uid}\t" in Path(f"/proc/{programs[program]}/status").read_text(), program
        for count in range(1, 6):  # each ends a pickup and a qmgr that may not have read what the master sent them
            assert instance.command("postfix", "reload").returncode == 0
            instance.wait_log(r"master\[\d+\]: reload --", count=count)
        with Client(instance.port) as client:
            client.reply()
            client.ask(b"EHLO x")
            assert client.send(b"me@box.test", [b"eve@box.test"], b"\r\nx").startswith(b"250 ")
        wait_for(lambda: instance.mailbox("eve"), what="mail after a reload with everything in jail")
        assert instance.unexpected() == []
        assert "fatal" not in instance.log()
