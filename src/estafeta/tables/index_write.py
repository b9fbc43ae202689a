"""Make and change indexed files: what postmap and postalias do.

Source: postmap(1). Invariants: a new file is written beside the old one, synced, and renamed over it, so that readers
(which take no lock) see one or the other; an incremental change is a change of a copy, and changers wait for one
another by flock(2) on the index file.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

import lmdb

from estafeta.system.atomic_file import replacing
from estafeta.tables.index import OPEN_FILES, ForeignIndex, stored_key, stored_value
from estafeta.tables.table import TableError


def new_file_mode(source: os.stat_result | None, inherit: bool) -> int:
    """The mode of a new index: that of its source, or 0644."""
    if source is None or not inherit:
        return 0o644
    return stat.S_IMODE(source.st_mode) & 0o666


def _map_size(entries: dict[bytes, bytes]) -> int:
    payload = sum(map(len, entries)) + sum(map(len, entries.values()))
    return 4 * payload + 128 * len(entries) + (1 << 20)


def write_index(path: str, entries: dict[bytes, bytes], mode: int, *, nul: bool = True) -> None:
    """Put a new index with ``entries`` in the place of ``path``; raises OSError or TableError.

    An existing file keeps its mode and owner, as it does when Postfix overwrites it.
    """
    owner = None
    try:
        old = os.stat(path)
    except FileNotFoundError:
        pass
    else:
        mode = stat.S_IMODE(old.st_mode)
        owner = (old.st_uid, old.st_gid)
    try:
        with replacing(path, mode, owner) as temporary:
            # Made here, for LMDB's own errors do not tell a full disk from a missing directory.
            os.close(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            _fill(temporary, entries, nul)
    except lmdb.Error as err:
        raise TableError(f"write database {path}: {err}") from err


def _fill(path: str, entries: dict[bytes, bytes], nul: bool) -> None:
    size = _map_size(entries)
    while True:
        # A private new file: written through the map, unsynced, and cut to what is used at the end.
        env = lmdb.open(
            path,
            subdir=False,
            lock=False,
            sync=False,
            metasync=False,
            writemap=True,
            map_async=True,
            map_size=size,
            mode=0o600,
            meminit=False,
        )
        try:
            with env.begin(write=True) as txn, txn.cursor() as cursor:
                cursor.putmulti(_sorted_items(entries, nul), dupdata=False, append=True)
            used = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
        except lmdb.MapFullError:
            size *= 2
            used = 0
        finally:
            env.close()
        os.truncate(path, used)
        if used:
            return


def _sorted_items(entries: dict[bytes, bytes], nul: bool) -> Iterator[tuple[bytes, bytes]]:
    # Sorting with or without the NUL gives the same order (NUL is the least byte); long keys are sorted in by their
    # digest form.
    if max(map(len, entries), default=0) <= 500:
        if nul:
            return ((key + b"\0", entries[key] + b"\0") for key in sorted(entries))
        return ((key, entries[key]) for key in sorted(entries))
    pairs = [(stored_key(key, nul), stored_value(key, value, nul)) for key, value in entries.items()]
    pairs.sort()
    return iter(pairs)


@contextmanager
def exclusive(path: str) -> Iterator[None]:
    """Keep other writers of the same table waiting while entries are read, changed and written back.

    The lock is on the index file itself (its directory when there is none yet); after waiting the name may mean a new
    file, so it is looked up again.
    """
    while True:
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
            ours = True
        else:
            ours = False
        fcntl.flock(fd, fcntl.LOCK_EX)
        if not ours:
            try:
                same = os.path.samestat(os.fstat(fd), os.stat(path))
            except FileNotFoundError:
                same = False
            if not same:
                os.close(fd)
                continue
        break
    try:
        yield
    finally:
        os.close(fd)


def read_index(path: str) -> dict[bytes, bytes]:
    """Every entry of the index at ``path``; raises OSError or TableError."""
    try:
        file = OPEN_FILES.acquire(path)  # LMDB allows one opening of a file in a process
    except ForeignIndex as err:
        raise TableError(f"open database {path}: {err}: make it anew from its source") from err
    except lmdb.Error as err:
        raise TableError(f"open database {path}: {err}") from err
    try:
        return dict(file.items())
    except lmdb.Error as err:
        raise TableError(f"open database {path}: {err}") from err
    finally:
        OPEN_FILES.release(file)
