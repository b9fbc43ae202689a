"""The few files of the machine that services in a jail look at: copies below the queue directory, refreshed at each start.

Source: master(5) chroot, resolv.conf(5), hosts(5), tzset(3). A worker opens its tables, keys and log before it enters the jail;
what is left are the files that change while it runs. No shared libraries are copied: nothing here loads one after the fork.
Invariants: a copy is root's, readable for everybody and replaced whole; a directory of the jail that is not root's own, or that is
a symbolic link, is not written to; files that are not there on the machine are not there in the jail either.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from estafeta.system.atomic_file import replacing

_FILES = ("etc/resolv.conf", "etc/hosts", "etc/services", "etc/nsswitch.conf", "etc/localtime")
_ZONES = "usr/share/zoneinfo"
_LARGEST = 1 << 22  # octets; a hosts file can be long


def jail_files(zone: str = "") -> tuple[str, ...]:
    """Names below the root directory; ``zone`` is what TZ says."""
    name = zone.removeprefix(":")
    if name and not name.startswith("/") and ".." not in name.split("/") and os.path.isfile(f"/{_ZONES}/{name}"):
        return (*_FILES, f"{_ZONES}/{name}")
    return _FILES


def refresh_jail(jail: str, *, root: str = "/", zone: str = "") -> list[str]:
    """Bring the copies up to date; a line for each one that could not be. Makes ``dev`` for a syslog socket, too."""
    problems = []
    for name in ("dev/", *jail_files(zone)):
        try:
            _make_directories(jail, os.path.dirname(name))
            if not name.endswith("/"):
                _refresh(os.path.join(root, name), os.path.join(jail, name))
        except OSError as error:
            problems.append(f"{os.path.join(jail, name)}: {error.strerror or error}")
    return problems


def differing_files(jail: str, *, root: str = "/", zone: str = "") -> Iterator[tuple[str, str]]:
    """Pairs of a copy and its original that are not the same any more. Copies that are not there differ from nothing."""
    for name in jail_files(zone):
        copy, original = os.path.join(jail, name), os.path.join(root, name)
        try:
            if _content(copy) != _content(original):
                yield copy, original
        except OSError:
            if os.path.exists(copy):
                yield copy, original


def foreign_files(jail: str) -> Iterator[str]:
    """What lies in the jail's system directories and is not root's: whoever owns it can mislead the services."""
    for top in ("etc", "dev", "lib", "usr"):
        for directory, _, names in os.walk(os.path.join(jail, top)):
            for path in (directory, *(os.path.join(directory, name) for name in names)):
                try:
                    if os.lstat(path).st_uid != 0:
                        yield path
                except OSError:
                    continue


def _make_directories(jail: str, name: str) -> None:
    path = jail
    for part in name.split("/"):
        path = os.path.join(path, part)
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            found = os.lstat(path)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise OSError(0, "not a directory of root's own") from None
        else:
            os.chmod(path, 0o755)  # whatever the umask says


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(_LARGEST)


def _refresh(original: str, copy: str) -> None:
    try:
        wanted = _content(original)
    except FileNotFoundError:
        if os.path.lexists(copy):
            os.unlink(copy)
        return
    try:
        if not os.path.islink(copy) and _content(copy) == wanted:
            return
    except FileNotFoundError:
        pass
    with replacing(copy, 0o644) as temporary, open(temporary, "wb") as file:
        file.write(wanted)
