"""Running an external command with a message on its standard input, and what its end means.

Source: local(8), pipe(8) EXTERNAL COMMAND DELIVERY; sysexits.h; postconf(5) command_time_limit.
The message lies in a memory file, so that nothing has to be pumped; end and output are watched by the event loop. Invariants: a
command never holds up another delivery; at the time limit its whole process group is killed; at most ``OUTPUT_MOST`` bytes of
output are kept; the child has only the rights, the environment and the three descriptors that it is given.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from estafeta.delivery.maildir import write_buffers
from estafeta.mail.dsn_code import split_status

OUTPUT_MOST = 4096
_PLAIN = frozenset("1234567890!@%-_=+:,./\\abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ \t")
_SYSEXITS = {
    64: ("5.3.0", "command line usage error"), 65: ("5.6.0", "data format error"), 66: ("5.3.0", "cannot open input"),
    67: ("5.1.1", "user unknown"), 68: ("5.1.2", "host name unknown"), 69: ("5.3.0", "service unavailable"),
    70: ("5.3.0", "internal software error"), 71: ("4.3.0", "system resource problem"),
    72: ("5.3.0", "critical OS file missing"), 73: ("5.2.0", "can't create user output file"),
    74: ("5.3.0", "input/output error"), 75: ("4.3.0", "temporary failure"), 76: ("5.5.0", "remote error in protocol"),
    77: ("5.7.0", "permission denied"), 78: ("5.3.5", "local configuration error"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. ``argv`` is used when it is given, else ``text`` directly or by a shell. Without ids: as the caller."""

    text: str
    uid: int | None
    gid: int | None
    environment: Mapping[str, str]
    directory: str | None
    time_limit_s: float
    argv: tuple[str, ...] = ()
    program: str = "local"
    stage: str = ""  # stands before what could not be done, in the message of a failed start
    jail: str = ""  # a root directory of its own (root only)


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """Exit status (negative: signal), output; ``timed_out``: it was killed at the time limit."""

    status: int
    output: bytes
    timed_out: bool = False


def command_argv(text: str, shell: str = "") -> tuple[str, ...]:
    """How to run a command line: directly if it is plain words, else by ``shell`` or /bin/sh."""
    if shell:
        return (*shell.split(), text)
    words = text.split()
    if words and not text[:1].isspace() and _PLAIN.issuperset(text):
        name = words[0]
        if "/" in name or any(os.access(f"{place}/{name}", os.X_OK) for place in ("/usr/bin", "/bin")):
            return tuple(words)
    return ("/bin/sh", "-c", text)


async def run_command(command: Command, message: Iterable[bytes]) -> CommandEnd:
    """Run it to its end; raises OSError when it cannot be started for lack of something."""
    import subprocess

    loop = asyncio.get_running_loop()
    argv = command.argv or command_argv(command.text)
    stdin = os.memfd_create("message", os.MFD_CLOEXEC)
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    as_root = os.geteuid() == 0 and command.uid is not None
    drops = as_root and not command.jail  # else the child sees to it itself, or there is nothing to drop
    try:
        write_buffers(stdin, list(message))
        os.lseek(stdin, 0, os.SEEK_SET)
        os.set_blocking(writer, True)
        child = subprocess.Popen(  # noqa: ASYNC220 - only the start blocks, for a millisecond
            argv, stdin=stdin, stdout=writer, stderr=writer, env=dict(command.environment),
            cwd=None if command.jail else command.directory, user=command.uid if drops else None,
            group=command.gid if drops else None, extra_groups=[] if drops else None, start_new_session=True, umask=0o077,
            preexec_fn=_entering(command) if command.jail else None,  # noqa: PLW1509 - no threads here
        )  # fmt: skip
    except OSError as error:
        os.close(reader)
        if error.filename is None or error.filename == command.directory:
            raise
        return CommandEnd(75, f"{command.program}: fatal: {command.stage}execvp {argv[0]}: {error.strerror}\n".encode())
    finally:
        os.close(stdin)
        os.close(writer)
    try:
        return await _watch(loop, child.pid, reader, command.time_limit_s)
    finally:
        child.returncode = 0  # reaped by _watch: Popen must not wait for it
        os.close(reader)


def _entering(command: Command) -> Callable[[], None]:
    """For the child: jail first, then rights. This worker has no threads that could hold a lock at the fork."""

    def enter() -> None:
        os.chroot(command.jail)
        os.chdir(command.directory or "/")
        if command.uid is not None and command.gid is not None:
            os.setgroups([])
            os.setresgid(command.gid, command.gid, command.gid)
            os.setresuid(command.uid, command.uid, command.uid)

    return enter


async def _watch(loop: asyncio.AbstractEventLoop, pid: int, reader: int, limit_s: float) -> CommandEnd:
    output = bytearray()
    ended: asyncio.Future[None] = loop.create_future()

    def more() -> None:
        try:
            data = os.read(reader, 65536)
        except BlockingIOError:
            return
        output.extend(data[: max(0, OUTPUT_MOST - len(output))])
        if not data:
            loop.remove_reader(reader)

    def over() -> None:
        loop.remove_reader(handle)
        if not ended.done():
            ended.set_result(None)

    handle = os.pidfd_open(pid)
    loop.add_reader(reader, more)
    loop.add_reader(handle, over)
    timed_out = False
    try:
        await asyncio.wait_for(ended, limit_s)
    except TimeoutError:
        timed_out = True
    finally:
        loop.remove_reader(handle)
        if timed_out or not ended.done():
            _kill(pid)
        _, status = os.waitpid(pid, 0)  # noqa: ASYNC222 - it has ended or was killed
        os.close(handle)
        loop.remove_reader(reader)
    try:
        while len(output) < OUTPUT_MOST and (data := os.read(reader, 65536)):
            output += data[: OUTPUT_MOST - len(output)]
    except BlockingIOError:
        pass
    return CommandEnd(os.waitstatus_to_exitcode(status), bytes(output), timed_out)


def _kill(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a command's end means: enhanced status (2, 4, 5), text for the log, and for the report (``Diagnostic-Code: x-unix``)."""

    dsn: str
    text: str
    diagnostic: str = ""


def judge(end: CommandEnd, text: str) -> Judgement:
    """``text`` is the command as the log shows it."""
    output = "".join(c if c.isprintable() else " " for c in end.output.decode("utf-8", "replace"))
    if end.timed_out:
        return Judgement("5.3.0", f'Command time limit exceeded: "{text}"', "internal software error")
    if end.status < 0:
        dsn, reason, said = "4.3.0", f'Command died with signal {-end.status}: "{text}"', ""
    elif end.status == 0:
        return Judgement("2.0.0", f"delivered to command: {text}")
    else:
        found, rest = split_status(output, "")
        if found and found[0] in "45":
            return Judgement(found, rest, rest.strip())
        known = _SYSEXITS.get(end.status)
        if known is not None:
            dsn, reason = known
            said = reason
        else:
            dsn, reason = "5.3.0", f'Command died with status {end.status}: "{text}"'
            said = f"unknown mail system error {end.status}"
    if output:
        return Judgement(dsn, f"{reason}. Command output: {output}", output.strip())
    return Judgement(dsn, reason, said)
