"""External commands: input, output, exit status, time limit."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from estafeta.delivery.command import OUTPUT_MOST, Command, CommandEnd, command_argv, judge, run_command


def run(text: str, message: bytes = b"hello\n", limit_s: float = 10.0, **more: object) -> CommandEnd:
    fields = {"environment": {"PATH": "/usr/bin:/bin", "A": "b"}, "directory": None} | more
    command = Command(text, None, None, time_limit_s=limit_s, **fields)  # type: ignore[arg-type]
    return asyncio.run(run_command(command, (message,)))


def test_input_and_output() -> None:
    assert run("cat; echo err >&2; echo $A") == CommandEnd(0, b"hello\nerr\nb\n")


def test_direct_execution() -> None:
    assert run("/bin/cat") == CommandEnd(0, b"hello\n")


@pytest.mark.parametrize(
    ("text", "dsn", "reason"),
    [
        ("exit 0", "2.0.0", "delivered to command: exit 0"),
        ("exit 67", "5.1.1", "user unknown"),
        ("echo hello; exit 75", "4.3.0", "temporary failure. Command output: hello "),
        ("exit 2", "5.3.0", 'Command died with status 2: "exit 2"'),
        ("kill -9 $$", "4.3.0", 'Command died with signal 9: "kill -9 $$"'),
        ("echo 5.9.9 custom; exit 1", "5.9.9", "custom "),
        ("/no/such/thing a", "4.3.0",
         "temporary failure. Command output: local: fatal: execvp /no/such/thing: No such file or directory "),
    ],
)  # fmt: skip
def test_what_the_end_means(text: str, dsn: str, reason: str) -> None:
    found = judge(run(text), text)
    assert (found.dsn, found.text) == (dsn, reason)


def test_time_limit_kills_the_group(tmp_path: Path) -> None:
    began = time.monotonic()
    end = run(f"(sleep 2; touch {tmp_path}/late) & sleep 30", limit_s=0.2)
    assert end.timed_out and time.monotonic() - began < 5
    assert judge(end, "x").text == 'Command time limit exceeded: "x"'


def test_a_child_left_behind_does_not_hold_us_up() -> None:
    began = time.monotonic()
    assert run("sleep 3 & echo done").output == b"done\n"
    assert time.monotonic() - began < 2.5


def test_output_is_capped() -> None:
    assert len(run("head -c 100000 /dev/zero").output) == OUTPUT_MOST


def test_commands_do_not_wait_for_one_another() -> None:
    async def both() -> float:
        began = time.monotonic()
        command = Command("sleep 0.4", None, None, {"PATH": "/bin:/usr/bin"}, None, 10.0)
        await asyncio.gather(*(run_command(command, ()) for _ in range(4)))
        return time.monotonic() - began

    assert asyncio.run(both()) < 1.4


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_rights() -> None:
    command = Command("id -u; id -g; id -G", 50001, 60001, {"PATH": "/bin:/usr/bin"}, "/", 10.0)
    assert asyncio.run(run_command(command, ())).output.split() == [b"50001", b"60001", b"60001"]


def test_shell_or_not() -> None:
    assert command_argv("/bin/x -a b") == ("/bin/x", "-a", "b")
    assert command_argv("a | b") == ("/bin/sh", "-c", "a | b")
    assert command_argv("exit 67") == ("/bin/sh", "-c", "exit 67")
    assert command_argv("x y", "/bin/rsh -c") == ("/bin/rsh", "-c", "x y")
