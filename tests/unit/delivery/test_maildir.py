"""Maildir group commit: contents, names, owners, failures; sync of small and large batches."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from estafeta.delivery import maildir
from estafeta.delivery.maildir import MaildirMessage, MaildirWriter
from estafeta.system.thread_identity import act_as

NAME = re.compile(r"\d{10}\.V[0-9a-f]+I[0-9a-f]+M\d{1,6}\.host\.example")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as others")


def deliver(jobs: list[tuple[str, int, int, bytes]]) -> list[OSError | None]:
    """Deliver all at once; what became of each."""

    async def run() -> list[OSError | None]:
        loop = asyncio.get_running_loop()
        writer = MaildirWriter("host.example", loop.call_soon, loop.call_soon_threadsafe)
        futures = [loop.create_future() for _ in jobs]
        for (directory, uid, gid, body), future in zip(jobs, futures, strict=True):
            writer.add(MaildirMessage(directory, uid, gid, b"H: 1\n", (b"\n", body), future.set_result))
        try:
            return await asyncio.wait_for(asyncio.gather(*futures), 10)
        finally:
            writer.close()

    return asyncio.run(run())


@pytest.mark.parametrize("count", [1, 3, 30])
@pytest.mark.parametrize("nameless", [True, False])
def test_every_message_is_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, nameless: bool) -> None:
    if not nameless:
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_WRONLY)  # fails as where there is no O_TMPFILE: EISDIR
    jobs = [(f"{tmp_path}/deep/box{n % 3}/", os.getuid(), os.getgid(), b"body %d\n" % n) for n in range(count)]
    assert deliver(jobs) == [None] * count
    found = list(tmp_path.glob("deep/*/new/*"))
    assert sorted(path.read_bytes() for path in found) == sorted(b"H: 1\n\nbody %d\n" % n for n in range(count))
    assert all(NAME.fullmatch(path.name) for path in found)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in found)
    assert not list(tmp_path.glob("deep/*/tmp/*"))
    for part in ("", "/box0", "/box0/cur", "/box0/new", "/box0/tmp"):
        assert (tmp_path / f"deep{part}").stat().st_mode & 0o777 == 0o700


def test_the_inode_of_the_name_is_that_of_the_file(tmp_path: Path) -> None:
    deliver([(f"{tmp_path}/m/", os.getuid(), os.getgid(), b"x")])
    (path,) = (tmp_path / "m/new").iterdir()
    status = path.stat()
    assert f".V{status.st_dev:x}I{status.st_ino:x}M" in path.name


def test_one_bad_mailbox_does_not_harm_the_others(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    good = f"{tmp_path}/good/"
    results = deliver([(good, 0, 0, b"1"), (f"{tmp_path}/file/", 0, 0, b"2"), (good, 0, 0, b"3")])
    assert results[0] is None and results[2] is None
    assert isinstance(results[1], NotADirectoryError)
    assert len(list((tmp_path / "good/new").iterdir())) == 2


def test_no_success_before_the_data_is_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    (error,) = deliver([(f"{tmp_path}/m/", 0, 0, b"x")])
    assert error is not None and error.errno == 5
    assert not list((tmp_path / "m/new").iterdir())


def test_a_failed_syncfs_falls_back_to_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        @staticmethod
        def syncfs(_: int) -> int:
            return -1

        @staticmethod
        def sync_file_range(*_: object) -> int:
            return -1

    synced: list[int] = []
    monkeypatch.setattr(maildir, "_libc", lambda: Broken)
    monkeypatch.setattr(os, "fdatasync", synced.append)
    count = maildir.SYNCFS_FROM + 1
    assert deliver([(f"{tmp_path}/m/", 0, 0, b"x")] * count) == [None] * count
    assert len(set(synced)) == count


@needs_root
def test_each_owner_gets_his_own(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o777)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and str(parent) != "/" and parent != Path("/tmp"):
            os.chmod(parent, parent.stat().st_mode | 0o055)
    jobs = [(f"{tmp_path}/u{n % 2}/", 50001 + n % 2, 60001 + n % 2, b"x") for n in range(20)]
    assert deliver(jobs) == [None] * 20
    for n in (0, 1):
        paths = list((tmp_path / f"u{n}/new").iterdir())
        assert len(paths) == 10
        assert {(path.stat().st_uid, path.stat().st_gid) for path in paths} == {(50001 + n, 60001 + n)}
    assert os.geteuid() == 0 and os.getegid() == 0


@needs_root
def test_another_user_cannot_write_where_he_may_not(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o700)
    (error,) = deliver([(f"{tmp_path}/m/", 50001, 60001, b"x")])
    assert isinstance(error, PermissionError)


@needs_root
def test_other_threads_stay_root() -> None:
    import threading

    seen: list[int] = []
    with act_as(50001, 60001):
        assert _thread_euid() == 50001
    assert _thread_euid() == 0
    ready, go = threading.Event(), threading.Event()

    def watch() -> None:
        ready.set()
        go.wait(5)
        seen.append(_thread_euid())

    thread = threading.Thread(target=watch)
    thread.start()
    ready.wait(5)
    with act_as(50001, 60001):
        go.set()
        thread.join()
    assert seen == [0]


def _thread_euid() -> int:
    text = Path("/proc/thread-self/status").read_text()
    return int(re.search(r"^Uid:\s+\d+\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]


@needs_root
def test_identity_comes_back_after_an_error() -> None:
    groups = os.getgroups()
    with pytest.raises(ValueError, match="x"), act_as(50001, 60001):
        raise ValueError("x")
    assert os.geteuid() == 0 and os.getegid() == 0 and os.getgroups() == groups
