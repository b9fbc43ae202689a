"""Replace a file whole: readers see the old bytes or the new bytes, never a mixture.

Source: rename(2), fsync(2). Invariants: the new file is complete and synced before it takes the name; the directory
is synced after; when anything fails the old file is untouched and no temporary file stays behind.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def sync_directory(path: str) -> None:
    """fsync the directory ``path``; raises OSError."""
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def replacing(path: str, mode: int, owner: tuple[int, int] | None = None) -> Iterator[str]:
    """Yield the name of a new file beside ``path`` that takes its place when the block ends well.

    The caller creates and fills the file under that name. ``mode`` is set whatever the umask says; ``owner``
    (uid, gid) is set when given and permitted. Raises OSError.
    """
    # The random part keeps two writers apart; the last rename wins, and both leave a whole file.
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        yield temporary
        fd = os.open(temporary, os.O_RDWR)
        try:
            if owner is not None:
                try:
                    os.fchown(fd, *owner)
                except PermissionError:
                    pass
            os.fchmod(fd, mode)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except FileNotFoundError:
            pass
        raise
    sync_directory(os.path.dirname(path))
