import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estafeta.system.immediate import run_now
from estafeta.tables import LookupFailed, OpenOptions, Table, TableError, open_table
from estafeta.tables.index_write import read_index, write_index


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def ask(table: Table, key: str) -> str | None:
    return run_now(table.lookup(key))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def options(clock: Clock, warnings: list[str] | None = None) -> OpenOptions:
    return OpenOptions(clock=clock, warn=([] if warnings is None else warnings).append)


@pytest.mark.parametrize(
    ("kind", "suffix"), [("hash", ".db"), ("btree", ".db"), ("dbm", ".db"), ("sdbm", ".db"), ("lmdb", ".lmdb")]
)
@pytest.mark.parametrize("nul", [True, False])
def test_lookup(tmp_path: Path, kind: str, suffix: str, nul: bool, clock: Clock) -> None:
    write_index(f"{tmp_path}/t{suffix}", {b"key": b"value", "é".encode(): b"e"}, 0o644, nul=nul)
    table = open_table(f"{kind}:{tmp_path}/t", options(clock))
    assert ask(table, "KEY") == "value"
    assert ask(table, "É") == "e"
    assert ask(table, "other") is None
    assert ask(table, "bad\udcff") is None
    table.close()
    with pytest.raises(LookupFailed):
        ask(table, "key")


def test_missing_file_is_an_error_at_open(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=f"^open database {tmp_path}/t.db: No such file or directory$"):
        open_table(f"hash:{tmp_path}/t")


def test_a_change_is_noticed_within_a_second(tmp_path: Path, clock: Clock) -> None:
    path = f"{tmp_path}/t.db"
    write_index(path, {b"a": b"1"}, 0o644)
    table = open_table(f"hash:{tmp_path}/t", options(clock))
    other = open_table(f"btree:{tmp_path}/t", options(clock))  # the same file, twice in a process
    assert ask(table, "a") == ask(other, "a") == "1"
    write_index(path, {b"a": b"2"}, 0o644)
    clock.now = 0.9
    assert ask(table, "a") == "1"
    clock.now = 1.1
    assert ask(table, "a") == "2"
    assert ask(other, "a") == "2"
    os.unlink(path)
    clock.now = 3
    assert ask(table, "a") == "2"
    Path(path).write_bytes(b"half made")
    clock.now = 5
    assert ask(table, "a") == "2"
    write_index(path, {b"a": b"3"}, 0o644)
    clock.now = 7
    assert ask(table, "a") == "3"
    table.close()
    other.close()


def test_change_in_place_by_another_program(tmp_path: Path, clock: Clock) -> None:
    path = f"{tmp_path}/t.lmdb"
    write_index(path, {b"a": b"1"}, 0o644)
    table = open_table(f"lmdb:{tmp_path}/t", options(clock))
    assert ask(table, "a") == "1"
    program = """
import lmdb, sys
env = lmdb.open(sys.argv[1], subdir=False, lock=False, map_size=1 << 24)
with env.begin(write=True) as txn:
    for number in range(5000):
        txn.put(b"k%d\\0" % number, b"x" * 100)
env.close()
"""
    subprocess.run([sys.executable, "-c", program, path], check=True, timeout=30)
    clock.now = 2
    assert ask(table, "k4999") == "x" * 100
    table.close()


def test_tables_opened_before_a_fork_work_in_the_child(tmp_path: Path, clock: Clock) -> None:
    write_index(f"{tmp_path}/t.db", {b"a": b"1"}, 0o644)
    table = open_table(f"hash:{tmp_path}/t", options(clock))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            again = open_table(f"hash:{tmp_path}/t", options(clock))
            status = 0 if ask(table, "a") == "1" and ask(again, "a") == "1" else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert ask(table, "a") == "1"
    table.close()


def test_berkeley_file_falls_back_to_its_source(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "t.db").write_bytes(bytes(12) + (0x061561).to_bytes(4, "little") + bytes(4080))
    with pytest.raises(TableError, match="made by another program: run postmap hash:"):
        open_table(f"hash:{tmp_path}/t", options(clock))
    warnings: list[str] = []
    (tmp_path / "t").write_text("Root: joe, ann\nx: y\n")
    table = open_table(f"hash:{tmp_path}/t", options(clock, warnings))
    assert ask(table, "root") == "joe, ann"
    assert len(warnings) == 1 and "made by another program" in warnings[0]
    (tmp_path / "t").write_text("a@b c\n")
    assert ask(open_table(f"hash:{tmp_path}/t", options(clock)), "A@B") == "c"


def test_broken_file_fails_for_now_or_at_open(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "t.db"
    write_index(str(path), {b"%d" % n: b"v" * 50 for n in range(2000)}, 0o644)
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes(len(whole) - 100))
    with pytest.raises(TableError):
        open_table(f"hash:{tmp_path}/t", options(clock))


def test_replacing_keeps_mode_and_leaves_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    write_index(str(path), {b"a": b"1"}, 0o640)
    assert path.stat().st_mode & 0o777 == 0o640
    write_index(str(path), {b"a": b"2"}, 0o600)
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["t.db"]
    with pytest.raises(OSError, match="No such file"):
        write_index(f"{tmp_path}/none/t.db", {}, 0o644)
    assert read_index(str(path)) == {b"a": b"2"}


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=700).filter(lambda k: b"\0" not in k),
        st.binary(max_size=700).filter(lambda v: b"\0" not in v),
        max_size=20,
    ),
    st.booleans(),
)
def test_any_entries_survive(tmp_path_factory: pytest.TempPathFactory, entries: dict[bytes, bytes], nul: bool) -> None:
    path = f"{tmp_path_factory.mktemp('i')}/t.db"
    write_index(path, entries, 0o644, nul=nul)
    assert read_index(path) == entries
    table = open_table(f"hash:{path[:-3]}", fold=False, utf8=False)
    for key, value in entries.items():
        text = key.decode("utf-8", "surrogateescape")
        assert ask(table, text) == value.decode("utf-8", "surrogateescape")
    table.close()
