"""The ``maildrop/`` directory: how a submission gets in, and who sees what is there.

A file is written under a temporary name, synced, renamed, and the directory synced: what has a final name is complete. The
writer is whoever may write there (root, mail_owner, members of setgid_group) or pickup(8) on behalf of everybody else: see
``docs/adr/0004-submission-without-setgid.md``. Imports nothing heavy: sendmail(1) starts with it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from estafeta.mail import maildrop
from estafeta.mail.queue_id import QueueIdMaker, is_queue_id
from estafeta.system.atomic_file import sync_directory

DIRECTORY = "maildrop"
_TEMPORARY = "tmp-"
SUBMIT_TIMEOUT_S = 60.0


class SubmitError(Exception):
    """The submission was not taken; ``temporary`` says whether trying again may help."""

    def __init__(self, reason: str, *, temporary: bool = True) -> None:
        super().__init__(reason)
        self.temporary = temporary


def may_write(queue_directory: str) -> bool:
    """Whether this process may put files into maildrop itself."""
    return os.access(os.path.join(queue_directory, DIRECTORY), os.W_OK | os.X_OK, effective_ids=True)


def write(queue_directory: str, data: bytes) -> str:
    """Make ``data`` (an encoded submission) a file of maildrop, safe on disk; its name. Raises OSError."""
    top = os.path.join(queue_directory, DIRECTORY)
    name = QueueIdMaker(os.getpid(), time.time_ns).next()
    temporary = os.path.join(top, _TEMPORARY + name)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            _give_away(descriptor, top)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, os.path.join(top, name))
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise
    try:
        sync_directory(top)
    except PermissionError:
        pass  # a group member may write in maildrop but not open it; the rename is in the journal of any file system we know
    return name


def _give_away(descriptor: int, top: str) -> None:
    """The file must be readable by pickup, which runs as the directory's owner."""
    stat = os.stat(top)
    if stat.st_uid == os.geteuid():
        return
    if os.geteuid() == 0:
        os.fchown(descriptor, stat.st_uid, stat.st_gid)
    else:
        os.fchmod(descriptor, 0o644)  # nobody else can search the directory


def wake_pickup(queue_directory: str) -> None:
    """Tell pickup that there is something; it looks by itself once a minute, so failing is no matter."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(1.0)
        try:
            link.connect(os.path.join(queue_directory, "public", "pickup"))
            link.sendall(b"W")
        except OSError:
            pass


def hand_to_pickup(queue_directory: str, data: bytes) -> str:
    """Have pickup write the file; its name once it is safe. Raises SubmitError.

    Protocol: ``SUBMIT octets LF``, then the encoded submission; answered with one line, ``OK name``, ``TRY reason`` (later) or
    ``NO reason``.
    """
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(SUBMIT_TIMEOUT_S)
        try:
            link.connect(os.path.join(queue_directory, "public", "pickup"))
            try:
                link.sendall(b"SUBMIT %d\n" % len(data) + data)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before all of it was read: the answer says why
            answer = b""
            while not answer.endswith(b"\n") and len(answer) < 2000:
                more = link.recv(2000)
                if not more:
                    break
                answer += more
        except OSError as error:
            raise SubmitError(f"connect to the pickup service: {error.strerror or error}") from None
    verdict, _, text = answer.decode("utf-8", "replace").rstrip("\n").partition(" ")
    if verdict == "OK" and answer.endswith(b"\n"):
        return text
    raise SubmitError(text or "the pickup service went away", temporary=verdict != "NO")


def submit(queue_directory: str, data: bytes) -> str:
    """Put an encoded submission into the queue by the way that is open; raises SubmitError."""
    if may_write(queue_directory):
        try:
            name = write(queue_directory, data)
        except OSError as error:
            raise SubmitError(f"create file {DIRECTORY}: {error.strerror or error}") from None
        wake_pickup(queue_directory)
        return name
    return hand_to_pickup(queue_directory, data)


def names(queue_directory: str) -> list[str]:
    """The complete files, in order of arrival (by name when in doubt); none if the directory cannot be read."""
    try:
        with os.scandir(os.path.join(queue_directory, DIRECTORY)) as entries:
            found = [(_mtime(entry), entry.name) for entry in entries if is_queue_id(entry.name)]
    except OSError:
        return []
    return [name for _, name in sorted(found)]


def _mtime(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_mtime_ns
    except OSError:
        return 0


def temporary_names(queue_directory: str, older_than: float) -> Iterator[str]:
    """Temporary files that a crash left (last touched before Unix time ``older_than``), as paths."""
    top = os.path.join(queue_directory, DIRECTORY)
    try:
        with os.scandir(top) as entries:
            for entry in entries:
                if entry.name.startswith(_TEMPORARY) and entry.stat(follow_symlinks=False).st_mtime < older_than:
                    yield entry.path
    except OSError:
        return


def read(queue_directory: str, name: str, *, with_content: bool = True) -> maildrop.Submission:
    """The submission in file ``name``; its ``uid`` is the file's owner unless that is root or maildrop's own owner.

    Raises OSError, or MaildropError for what is no submission (a link, a directory, garbage).
    """
    top = os.path.join(queue_directory, DIRECTORY)
    descriptor = os.open(os.path.join(top, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:
        import stat as kinds

        stat = os.fstat(descriptor)
        if not kinds.S_ISREG(stat.st_mode):
            raise maildrop.MaildropError("no regular file")
        if with_content:
            data = stream.read()
        else:
            data = stream.read(65536)
            while b"\n\n" not in data and len(data) < maildrop.MAX_HEAD:
                more = stream.read(1 << 20)
                if not more:
                    break
                data += more
    found = maildrop.decode(data, with_content=with_content)
    if stat.st_uid not in (0, os.stat(top).st_uid):
        found.uid = stat.st_uid  # a member of setgid_group may write here, but not speak for others
    if not with_content:
        found.content = bytes(0)
    return found
