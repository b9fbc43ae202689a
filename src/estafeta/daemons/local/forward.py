"""Reading .forward and :include: files, with the rights of those to whom they belong.

Source: local(8) SYSTEM-WIDE AND USER-LEVEL ALIASING, aliases(5). Everything here is synchronous, inside ``act_as``.
"""

from __future__ import annotations

import os
import stat

from estafeta.mail.text import to_text
from estafeta.system.privilege import User
from estafeta.system.thread_identity import act_as

_MOST_BYTES = 1 << 20


class Unreadable(Exception):
    """The file is there and cannot be used; the text says why."""


def read_forward(paths: list[str], user: User) -> tuple[str, str] | None:
    """Path and text of the first of ``paths`` that exists, None without one; raises Unreadable for one to be ignored."""
    with act_as(user.uid, user.gid):
        for path in paths:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise Unreadable(f"cannot open file {path}: {error.strerror}") from None
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    raise Unreadable(f"file {path} is not a regular file")
                if status.st_uid not in (0, user.uid) and os.getuid() == 0:
                    raise Unreadable(f"file {path} has bad owner")
                if status.st_mode & 0o002:
                    raise Unreadable(f"file {path} is world writable")
                return path, to_text(os.read(fd, _MOST_BYTES))
            finally:
                os.close(fd)
    return None


def read_include(path: str, rights: User | None) -> tuple[str, int]:
    """Text and owner of an :include: file, read with ``rights``; raises OSError."""
    uid, gid = (rights.uid, rights.gid) if rights is not None else (0, 0)
    with act_as(uid, gid), open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "not a regular file", path)
        return to_text(file.read(_MOST_BYTES)), status.st_uid
