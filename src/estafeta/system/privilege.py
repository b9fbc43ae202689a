"""Users, groups, jails: becoming somebody else, for good or for the length of one synchronous block.

Source: master(5) (unpriv, chroot), local(8) SECURITY. Without root every call here keeps the caller's identity, because there
is nothing to give up; that is how developers, tests and containers run the system.
"""

from __future__ import annotations

import grp
import os
import pwd
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from estafeta.system import capabilities


@dataclass(frozen=True, slots=True)
class User:
    """An account: name, numbers, home directory, shell."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


def find_user(name: str) -> User | None:
    """The account ``name`` (or a decimal uid), or None."""
    try:
        entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except (KeyError, ValueError):
        return None
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir, entry.pw_shell)


def find_group(name: str) -> int | None:
    """The number of group ``name``, or None."""
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def is_root() -> bool:
    """True if this process can become anybody."""
    return os.geteuid() == 0


def drop_for_good(user: User | None, jail: str | None) -> None:
    """Enter ``jail`` and become ``user`` irrevocably; raises OSError. Does nothing without root.

    A user other than root also gives up every capability for good, for itself and for whatever it might execute.
    """
    if not is_root():
        return
    time.tzset()  # the time zone comes from files outside of the jail
    renounces = user is not None and user.uid != 0
    if renounces:
        capabilities.close_bounding_set()
    if user is not None:
        os.initgroups(user.name, user.gid)
    if jail is not None:
        os.chroot(jail)
        os.chdir("/")
    if user is not None:
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    if renounces:
        capabilities.renounce()


@contextmanager
def become(uid: int, gid: int) -> Iterator[None]:
    """Act as ``uid``/``gid`` inside the block, which must not await. Does nothing without root."""
    if not is_root() or (uid == 0 and gid == 0):
        yield
        return
    groups = os.getgroups()
    os.setgroups([gid])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
