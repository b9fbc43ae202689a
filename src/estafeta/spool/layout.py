"""Where things lie in the queue directory; nobody outside this package builds a queue path.

``incoming/`` has segments (``seg-...``) with their done logs (``seg-....done``) and large messages in files of their own,
named by queue id. ``deferred/`` has one directory for every 64 seconds of next-retry time (hexadecimal) and in it one file
per message. ``hold/`` and ``corrupt/`` have files by queue id; ``maildrop/`` belongs to postdrop and pickup; ``active/``,
``bounce/``, ``defer/``, ``trace/``, ``flush/`` and ``saved/`` exist because administrators and tools look for them.
"""

from __future__ import annotations

import os

SEGMENT_PREFIX = "seg-"
DONE_SUFFIX = ".done"
TEMPORARY_PREFIX = "tmp-"
BUCKET_SECONDS = 64
QUEUES = ("maildrop", "incoming", "active", "deferred", "hold", "corrupt")
OWN_DIRECTORIES = ("incoming", "active", "deferred", "hold", "corrupt", "bounce", "defer", "trace", "flush", "saved")


def bucket_name(when: float) -> str:
    """The directory below ``deferred/`` for a next-retry time in Unix seconds."""
    return f"{max(0, int(when)) // BUCKET_SECONDS:08x}"


def bucket_start(name: str) -> int | None:
    """The first second of a bucket, or None if ``name`` is no bucket."""
    try:
        return int(name, 16) * BUCKET_SECONDS if len(name) == 8 else None
    except ValueError:
        return None


def prepare(queue_directory: str, mode: int = 0o700) -> None:
    """Make the directories that the spool needs; raises OSError."""
    for name in OWN_DIRECTORIES:
        os.makedirs(os.path.join(queue_directory, name), mode, exist_ok=True)


def sync_directory(path: str) -> None:
    """Make the names in ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
