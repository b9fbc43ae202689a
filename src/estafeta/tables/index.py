"""Indexed files: what hash:, btree:, dbm:, sdbm: and lmdb: tables are on disk, and how they are read.

Source: py-lmdb, lmdb_table(5); measured traps in libraries.md section 4. One LMDB file per table, named as Postfix
names it (``X.db``, or ``X.lmdb`` for lmdb:). Invariants: readers take no lock and write nothing; writers never change a
file in place but put a new one in its place; a key ends with a NUL, as Postfix writes it, and files without are read
too; a key longer than LMDB takes is stored under its digest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Literal

import lmdb

from estafeta.tables.table import LookupFailed, OpenOptions, TableError, fold_key, is_utf8
from estafeta.tables.watch import FileWatch, stamp_of

SUFFIXES = {"hash": ".db", "btree": ".db", "dbm": ".db", "sdbm": ".db", "lmdb": ".lmdb"}
MAX_KEY_BYTES = 500  # LMDB takes 511, with the NUL and our own prefix
LONG_KEY_PREFIX = b"\0long\0"  # no key of a text file begins with NUL

_LMDB_MAGIC = 0xBEEFC0DE
_BERKELEY_MAGIC = {0x061561, 0x053162}


class ForeignIndex(TableError):
    """The index file is not ours: it was made by another program."""


def kind_of_file(path: str) -> str:
    """ "lmdb", "berkeley" or "other" by the first bytes of ``path``; raises OSError."""
    with open(path, "rb") as file:
        head = file.read(64)
    orders: tuple[Literal["little", "big"], ...] = ("little", "big")
    for order in orders:
        if len(head) >= 20 and int.from_bytes(head[16:20], order) == _LMDB_MAGIC:
            return "lmdb"
        if len(head) >= 16 and int.from_bytes(head[12:16], order) in _BERKELEY_MAGIC:
            return "berkeley"
    return "other"


def stored_key(key: bytes, nul: bool = True) -> bytes:
    """The form under which ``key`` is in the file."""
    if len(key) > MAX_KEY_BYTES:
        return LONG_KEY_PREFIX + hashlib.sha256(key).hexdigest().encode()
    return key + b"\0" if nul else key


def stored_value(key: bytes, value: bytes, nul: bool = True) -> bytes:
    """The form in which ``value`` is in the file; a long key travels with it."""
    if len(key) > MAX_KEY_BYTES:
        value = len(key).to_bytes(4, "big") + key + value
    return value + b"\0" if nul else value


class IndexFile:
    """One open LMDB file, shared by all tables of this process that name it."""

    __slots__ = ("both_forms", "env", "identity", "nul", "path", "users")

    def __init__(self, path: str, identity: tuple[int, int, int]) -> None:
        self.path = path
        self.identity = identity
        self.users = 0
        self.env = lmdb.open(
            path, subdir=False, readonly=True, create=False, lock=False, readahead=False, max_spare_txns=4
        )
        with self.env.begin() as txn, txn.cursor() as cursor:
            first = cursor.key() if cursor.first() else b"\0"
            last = cursor.key() if cursor.last() else b"\0"
        forms = {key.endswith(b"\0") for key in (first, last) if not key.startswith(LONG_KEY_PREFIX)}
        self.nul = True in forms or not forms
        self.both_forms = len(forms) == 2

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key`` in this file; raises lmdb.Error."""
        with self.env.begin() as txn:
            value = txn.get(stored_key(key, self.nul))
            if value is None and self.both_forms:
                value = txn.get(stored_key(key, not self.nul))
        if value is None:
            return None
        if len(key) > MAX_KEY_BYTES:
            size = int.from_bytes(value[:4], "big")
            if value[4 : 4 + size] != key:
                return None
            value = value[4 + size :]
        return value[:-1] if value.endswith(b"\0") else value

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every entry in the order of the file; raises lmdb.Error."""
        with self.env.begin() as txn, txn.cursor() as cursor:
            for key, value in cursor:
                if key.startswith(LONG_KEY_PREFIX):
                    size = int.from_bytes(value[:4], "big")
                    key, value = value[4 : 4 + size], value[4 + size :]
                elif key.endswith(b"\0"):
                    key = key[:-1]
                yield key, value[:-1] if value.endswith(b"\0") else value


class OpenFiles:
    """The LMDB files open in this process.

    LMDB refuses to open a file twice in one process, and its list of open files is inherited over fork(2): so files are
    shared here, and a child closes what it inherited before it opens its own.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._files: dict[tuple[int, ...], IndexFile] = {}

    def acquire(self, path: str) -> IndexFile:
        """The open file at ``path``; raises OSError, ForeignIndex or lmdb.Error."""
        if self._pid != os.getpid():
            for file in self._files.values():
                file.env.close()
            self._files = {}
            self._pid = os.getpid()
        st = os.stat(path)
        key = (st.st_dev, st.st_ino)
        if key not in self._files:
            if kind_of_file(path) != "lmdb":
                raise ForeignIndex(f"{path} was made by another program")
            self._files[key] = IndexFile(path, (*key, self._pid))
        file = self._files[key]
        file.users += 1
        return file

    def release(self, file: IndexFile) -> None:
        """Give ``file`` back; the last one closes it."""
        file.users -= 1
        if file.users == 0 and file.identity[2] == os.getpid():
            self._files.pop(file.identity[:2], None)
            file.env.close()


OPEN_FILES = OpenFiles()  # a process-wide fact of liblmdb, not a setting


def index_path(kind: str, path: str) -> str:
    """The index file of ``kind:path``."""
    return path + SUFFIXES[kind]


class IndexTable:
    """hash:, btree:, dbm:, sdbm:, lmdb:."""

    is_pattern = False

    def __init__(self, kind: str, path: str, options: OpenOptions, name: str | None = None) -> None:
        """Raises TableError when the file is missing or cannot be read."""
        self.name = name or f"{kind}:{path}"
        self._kind = kind
        self._path = index_path(kind, path)
        self._options = options
        self._fold = options.fold
        self._pid = os.getpid()
        try:
            self._file = OPEN_FILES.acquire(self._path)
        except OSError as err:
            raise TableError(f"open database {self._path}: {err.strerror}") from err
        except ForeignIndex:
            raise ForeignIndex(
                f"open database {self._path}: the file was made by another program: run postmap {kind}:{path}"
            )
        except lmdb.Error as err:
            raise TableError(f"open database {self._path}: {err}") from err
        self._watch = FileWatch(self._path, options.clock, options.check_interval_s)
        self._closed = False

    def _refresh(self) -> None:
        if self._pid != os.getpid():
            # Opened before a fork: the inherited environment must not be used; open our own.
            try:
                self._file = OPEN_FILES.acquire(self._path)
            except (OSError, TableError, lmdb.Error) as err:
                raise LookupFailed(self.name, f"cannot open {self._path} after a fork: {err}")
            self._pid = os.getpid()
            self._watch.accept(stamp_of(self._path))
            return
        stamp = self._watch.changed()
        if stamp is None:
            return
        try:
            fresh = OPEN_FILES.acquire(self._path)
            if fresh is self._file and fresh.users == 2:
                # Same file, changed in place (by a real postmap): map it anew, for it may have grown.
                OPEN_FILES.release(fresh)
                OPEN_FILES.release(self._file)
                fresh = OPEN_FILES.acquire(self._path)
                self._file = fresh
                self._watch.accept(stamp)
                return
        except (OSError, TableError, lmdb.Error):
            return  # half made or foreign: keep the old data, look again in a second
        OPEN_FILES.release(self._file)
        self._file = fresh
        self._watch.accept(stamp)

    async def lookup(self, key: str) -> str | None:
        """The value of ``key``; raises LookupFailed."""
        if self._closed:
            raise LookupFailed(self.name, "the table is closed")
        self._refresh()
        if self._options.utf8 and not is_utf8(key):
            return None
        if self._fold:
            key = fold_key(key)
        try:
            value = self._file.get(key.encode("utf-8", "surrogateescape"))
        except lmdb.Error as err:
            raise LookupFailed(self.name, str(err))
        return None if value is None else value.decode("utf-8", "surrogateescape")

    def items(self) -> Iterator[tuple[str, str]]:
        """Every entry; raises LookupFailed."""
        self._refresh()
        try:
            for key, value in self._file.items():
                yield key.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
        except lmdb.Error as err:
            raise LookupFailed(self.name, str(err))

    def close(self) -> None:
        """Give the file back."""
        if not self._closed:
            self._closed = True
            if self._pid == os.getpid():
                OPEN_FILES.release(self._file)
