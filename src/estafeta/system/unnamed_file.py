"""A file without a name: scratch space that ends with the process that holds it."""

from __future__ import annotations

import errno
import os
import secrets
from typing import BinaryIO

_NO_SUPPORT = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)


def unnamed_file(directory: str) -> BinaryIO:
    """Open one for reading and writing in the file system of ``directory``; raises OSError."""
    try:
        number = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_SUPPORT:
            raise
        path = os.path.join(directory, f".{secrets.token_hex(8)}")
        number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.unlink(path)
    return os.fdopen(number, "w+b", buffering=0)
