"""The spool, killed before every single system call: nothing that was acknowledged is lost, nothing finished comes back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from estafeta.ipc.messages import Place, Recipient
from estafeta.spool import layout, scan
from estafeta.spool.journal import LargeMessage
from estafeta.spool.queue import Move, QueueStore
from support.crash import at_every_step
from support.spool import CONTENT, commit, envelope, recovered


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], str]:
    counter = iter(range(10000))

    def make() -> str:
        directory = str(tmp_path / str(next(counter)))
        layout.prepare(directory)
        return directory

    return make


def test_commit(fresh: Callable[[], str]) -> None:
    def work(directory: str) -> None:
        places = commit(directory, ["AAAA01", "AAAA02"])
        Path(directory, "acknowledged").write_text(str(len(places)))

    def check(directory: str, finished: bool) -> None:
        left = recovered(directory)
        if Path(directory, "acknowledged").exists():
            assert left == {"AAAA01": {0}, "AAAA02": {0}}
        assert set(left) <= {"AAAA01", "AAAA02"}
        assert finished <= (len(left) == 2)

    assert at_every_step(fresh, work, check) >= 5


def test_large_message(fresh: Callable[[], str]) -> None:
    def work(directory: str) -> None:
        file = LargeMessage(directory, "BBBB01", envelope("BBBB01"))
        for _ in range(3):
            file.write(b"x" * 100000 + b"\r\n")
        file.write(CONTENT)
        file.commit(envelope("BBBB01"))
        Path(directory, "acknowledged").touch()

    def check(directory: str, finished: bool) -> None:
        left = recovered(directory)
        if Path(directory, "acknowledged").exists():
            assert left == {"BBBB01": {0}}
        assert finished <= (left == {"BBBB01": {0}})

    assert at_every_step(fresh, work, check) >= 7


def test_envelope_that_outgrows_its_room(fresh: Callable[[], str]) -> None:
    def work(directory: str) -> None:
        file = LargeMessage(directory, "BBBB02", envelope("BBBB02"))
        file.write(CONTENT)
        grown = envelope("BBBB02")
        grown.recipients = [Recipient(b"r0@" + b"y" * 100) for _ in range(200)]
        file.commit(grown)
        Path(directory, "acknowledged").touch()

    def check(directory: str, finished: bool) -> None:
        if Path(directory, "acknowledged").exists():
            assert set(recovered(directory)) == {"BBBB02"}

    assert at_every_step(fresh, work, check) >= 6


def with_segment(fresh: Callable[[], str]) -> Callable[[], tuple[str, list[Place]]]:
    def prepare() -> tuple[str, list[Place]]:
        directory = fresh()
        return directory, commit(directory, ["CCCC01", "CCCC02"], recipients=3)

    return prepare


def test_finish(fresh: Callable[[], str]) -> None:
    """Finished recipients stay finished once the mark is written; the segment goes only when all are."""

    def work(state: tuple[str, list[Place]]) -> None:
        directory, (one, two) = state
        store = QueueStore(directory)
        for place in (one, two):
            store.register(place)
        store.finish(one, envelope("CCCC01", 3), [0], last=False)
        store.flush()
        Path(directory, "asked").touch()
        store.finish(one, envelope("CCCC01", 3), [], last=True)
        store.flush()
        Path(directory, "one").touch()
        store.finish(two, envelope("CCCC02", 3), [], last=True)
        store.flush()
        Path(directory, "two").touch()
        store.sweep()

    def check(state: tuple[str, list[Place]], finished: bool) -> None:
        directory = state[0]
        left = recovered(directory)
        if Path(directory, "one").exists():
            assert "CCCC01" not in left
        elif not Path(directory, "asked").exists():
            assert left["CCCC01"] in ({0, 1, 2}, {1, 2})
        if Path(directory, "two").exists():
            assert left == {}
        elif not finished:
            assert left.get("CCCC02") in ({0, 1, 2}, None)
        if finished:
            assert os.listdir(os.path.join(directory, "incoming")) == []

    assert at_every_step(with_segment(fresh), work, check) >= 6


@pytest.mark.parametrize("queue_name", ["deferred", "hold"])
def test_move_to_a_file(fresh: Callable[[], str], queue_name: str) -> None:
    """Recipient 0 is finished, 1 and 2 move: at every instant exactly one whole copy counts."""

    def work(state: tuple[str, list[Place]]) -> None:
        directory, (one, _) = state
        store = QueueStore(directory)
        store.register(one)
        store.finish(one, envelope("CCCC01", 3), [0], last=False)
        store.flush()
        Path(directory, "delivered0").touch()
        moved = envelope("CCCC01", 3)
        moved.next_try_at = 5000.0
        move = Move(one, moved, [1, 2], queue_name, [0])
        store.move_batch([move])
        assert move.error is None
        store.moved(move)
        store.flush()

    def check(state: tuple[str, list[Place]], finished: bool) -> None:
        directory = state[0]
        left = recovered(directory)
        assert left["CCCC02"] == {0, 1, 2}
        if Path(directory, "delivered0").exists():
            assert left["CCCC01"] == {1, 2}
        else:
            assert {1, 2} <= left["CCCC01"]
        if finished:
            assert list(scan.own_file_names(directory, queue_name))

    assert at_every_step(with_segment(fresh), work, check) >= 10


def test_defer_again_and_finish(fresh: Callable[[], str]) -> None:
    """A message in a file of its own: one recipient done, the rest put off again, then all done."""

    def prepare() -> tuple[str, Place]:
        directory, (one, two) = with_segment(fresh)()
        store = QueueStore(directory)
        for place in (one, two):
            store.register(place)
        first = envelope("CCCC01", 3)
        first.next_try_at = 5000.0
        move = Move(one, first, [0, 1, 2], "deferred")
        store.move_batch([move])
        store.moved(move)
        store.finish(two, envelope("CCCC02", 3), [], last=True)
        store.close()
        return directory, move.place

    def work(state: tuple[str, Place]) -> None:
        directory, place = state
        store = QueueStore(directory)
        again = envelope("CCCC01", 3)
        store.finish(place, again, [1], last=False)
        Path(directory, "delivered1").touch()
        again.next_try_at = 9000.0
        move = Move(place, again, [0, 2], "deferred", [1])
        store.move_batch([move])
        assert move.error is None
        store.moved(move)
        Path(directory, "deferred2").touch()
        store.finish(move.place, again, [], last=True)
        Path(directory, "gone").touch()

    def check(state: tuple[str, Place], finished: bool) -> None:
        directory = state[0]
        left = recovered(directory)
        if Path(directory, "gone").exists():
            assert left == {}
        elif Path(directory, "deferred2").exists():
            assert left in ({"CCCC01": {0, 2}}, {})
        elif Path(directory, "delivered1").exists():
            assert left == {"CCCC01": {0, 2}}
        else:
            assert left["CCCC01"] >= {0, 2}

    assert at_every_step(prepare, work, check) >= 8


def test_a_segment_is_never_visible_without_its_lock(fresh: Callable[[], str]) -> None:
    """Whoever dies while making a segment leaves nothing that looks like one and is not locked, or an empty one."""

    def work(directory: str) -> None:
        commit(directory, ["AAAA01"])

    def check(directory: str, finished: bool) -> None:
        store = QueueStore(directory)
        for segment in scan.segment_names(directory):
            assert not finished or os.path.getsize(os.path.join(directory, segment)) > 0
        store.remove_temporary(float(1 << 40))
        left = [name for name in os.listdir(os.path.join(directory, "incoming")) if name.startswith(layout.TEMPORARY_PREFIX)]
        assert left == []
        store.close()

    assert at_every_step(fresh, work, check) >= 6


def test_an_empty_segment_of_a_live_writer_stays(fresh: Callable[[], str]) -> None:
    directory = fresh()
    from estafeta.spool.journal import Segment

    segment = Segment(directory, "seg-1-1-1")
    store = QueueStore(directory)
    assert list(store.recover_incoming()) == []
    store.sweep()
    assert os.path.exists(segment.path)
    segment.close()
    store.sweep()
    assert not os.path.exists(segment.path)
    store.close()
