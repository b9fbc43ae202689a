"""Replacing a configuration file in one step.

Source: postconf(1), "the file is copied to a temporary file then renamed into place".
Invariant: a reader sees the whole old file or the whole new one, with the mode and owner that the old one had; a crash
leaves one of the two (the data is synced before the rename, the directory after it).
"""

from __future__ import annotations

import os

from estafeta.config.errors import ConfigError


def replace_file(path: str, content: bytes) -> None:
    """Write `content` over the existing file `path`, atomically. Raises ConfigError. A symbolic link is followed."""
    target = os.path.realpath(path)
    temporary = f"{target}.tmp{os.getpid()}"
    try:
        status = os.stat(target)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), status.st_uid, status.st_gid)
                os.fchmod(file.fileno(), status.st_mode & 0o7777)
                os.fsync(file.fileno())
            os.rename(temporary, target)
        except OSError:
            os.unlink(temporary)
            raise
        directory = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise ConfigError(f"cannot replace {path}: {error.strerror}") from None
