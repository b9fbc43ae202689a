"""tables.accounts: the same answers with and without a jail; trouble is temporary."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal

import pytest

from estafeta.system.immediate import run_now
from estafeta.tables.accounts import UnixTable
from estafeta.tables.table import LookupFailed, OpenOptions


def test_the_same_from_outside() -> None:
    async def ask() -> None:
        for kind, names in (("passwd.byname", ["root", "Root", "no-such-user", "a b", "\udcff", ""]), ("group.byname", ["root", "nope"])):
            inside, outside = UnixTable(kind, OpenOptions()), UnixTable(kind, OpenOptions(jailed=True))
            try:
                answers = await asyncio.gather(*(outside.lookup(name) for name in names * 20))
                assert answers == [run_now(inside.lookup(name)) for name in names * 20]
            finally:
                outside.close()

    asyncio.run(ask())
    assert run_now(UnixTable("passwd.byname", OpenOptions()).lookup("root")) == ":".join(map(str, pwd.getpwnam("root")))


def test_a_dead_process_is_a_temporary_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the worker asks to be replaced (SIGHUP to itself)."""
    asked: list[tuple[int, int]] = []
    children: list[int] = []
    fork = os.fork

    def noting() -> int:
        pid = fork()
        children.append(pid)
        return pid

    monkeypatch.setattr(os, "fork", noting)

    async def ask() -> None:
        table = UnixTable("passwd.byname", OpenOptions(jailed=True))
        assert await table.lookup("root")
        os.kill(children[0], signal.SIGSTOP)
        slow = asyncio.ensure_future(table.lookup("root"))
        await asyncio.sleep(0.05)
        monkeypatch.setattr(os, "kill", lambda pid, number: asked.append((pid, number)))
        signal.pidfd_send_signal(os.pidfd_open(children[0]), signal.SIGKILL)
        with pytest.raises(LookupFailed):
            await slow
        with pytest.raises(LookupFailed):
            await table.lookup("root")
        table.close()

    asyncio.run(ask())
    assert asked == [(os.getpid(), signal.SIGHUP)]
    os.waitpid(children[0], 0)


def test_it_ends_with_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[int] = []
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: children.append(fork()) or children[-1])
    table = UnixTable("passwd.byname", OpenOptions(jailed=True))
    table.close()
    pid, status = os.waitpid(children[0], 0)
    assert (pid, status) == (children[0], 0)
