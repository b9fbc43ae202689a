"""Appending to mailbox files: content, locks, limits, what is refused, what is left after a failure."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
from pathlib import Path

import pytest

from estafeta.delivery.locking import LockPolicy, parse_methods
from estafeta.delivery.mbox import MboxError, MboxJob, MboxWriter

QUICK = LockPolicy(("fcntl", "dotlock"), attempts=2, delay_s=0.01)


def append(path: Path, body: bytes = b"a\n\nFrom x\n", times: int = 1, **more: object) -> None:
    job = MboxJob(str(path), b"From s  date\n", **({"limit": 0, "owner": None, "lock": QUICK} | more))  # type: ignore[arg-type]

    async def run() -> None:
        writer = MboxWriter()
        await asyncio.gather(*(writer.append(job, (body,), os.getuid(), os.getgid()) for _ in range(times)))
        assert not writer._under_way

    asyncio.run(run())


def test_appends_in_mbox_form(tmp_path: Path) -> None:
    path = tmp_path / "box"
    append(path)
    append(path)
    assert path.read_bytes() == b"From s  date\na\n\n>From x\n\n" * 2
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["box"]


def test_our_own_deliveries_take_turns(tmp_path: Path) -> None:
    append(tmp_path / "box", b"b\n", times=20)
    assert (tmp_path / "box").read_bytes() == b"From s  date\nb\n\n" * 20


def test_size_limit_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "box"
    append(path)
    before = path.read_bytes()
    with pytest.raises(MboxError) as failure:
        append(path, limit=len(before) + 3)
    assert failure.value.dsn == "5.2.2"
    assert path.read_bytes() == before


def test_a_failed_sync_is_cut_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "box"
    path.write_bytes(b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(MboxError) as failure:
        append(path)
    assert failure.value.dsn.startswith("4")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["box"]


def test_somebody_elses_lock_is_respected(tmp_path: Path) -> None:
    path = tmp_path / "box"
    path.write_bytes(b"")
    with path.open("r+b") as other:
        fcntl.fcntl(other, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        with pytest.raises(MboxError, match="unable to lock for exclusive access"):
            append(path)
    (tmp_path / "box.lock").touch()
    with pytest.raises(MboxError, match="unable to lock"):
        append(path)
    os.utime(tmp_path / "box.lock", (1, 1))  # stale
    append(path)


@pytest.mark.parametrize("kind", ["directory", "symlink", "hard link", "executable", "stranger"])
def test_what_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "box"
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    more: dict[str, object] = {}
    if kind == "directory":
        path.mkdir()
    elif kind == "symlink":
        path.symlink_to(target)
    elif kind == "hard link":
        path.hardlink_to(target)
    else:
        path.write_bytes(b"precious")
        if kind == "executable":
            path.chmod(0o755)
        else:
            more = {"owner": os.getuid() + 1}
    with pytest.raises(MboxError):
        append(path, **more)
    assert target.read_bytes() == b"precious"
    assert not (tmp_path / "box.lock").exists()


def test_dev_null_is_a_place_for_aliases_only() -> None:
    append(Path("/dev/null"), special_files=True)
    with pytest.raises(MboxError):
        append(Path("/dev/null"))


def test_lock_methods() -> None:
    assert parse_methods(["flock", "dotlock"]) == ("flock", "dotlock")
    with pytest.raises(ValueError, match="unknown lock method: lockf"):
        parse_methods(["lockf"])
