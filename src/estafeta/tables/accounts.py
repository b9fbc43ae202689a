"""unix:passwd.byname and unix:group.byname: the accounts of this machine, also for a service in a jail.

Source: DATABASE_README, postconf(5) local_recipient_maps. In a jail there is no /etc/passwd and none of what the C library may
ask instead of it. A jailed worker therefore starts a process beside it, before it enters the jail: it stays outside, as an
account without rights, and answers this one question. (Postfix has proxymap(8) for that.) Invariants: it ends with its worker;
when it is gone, every look-up is a temporary failure and the worker has itself replaced; an answer that takes too long is a
temporary failure.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

from estafeta.tables.table import LookupFailed, OpenOptions, TableError, fold_key

if TYPE_CHECKING:
    import asyncio

_TIME_LIMIT_S = 10.0
_NOBODY = 65534
_LARGEST = 65536  # octets of a question or an answer


def _entry(kind: str, key: str) -> str | None:
    """The passwd(5) or group(5) line of ``key``; raises OSError."""
    try:
        if kind == "passwd.byname":
            from pwd import getpwnam

            user = getpwnam(key)
            return ":".join(str(part) for part in user)
        from grp import getgrnam

        group = getgrnam(key)
        return f"{group.gr_name}:{group.gr_passwd}:{group.gr_gid}:{','.join(group.gr_mem)}"
    except (KeyError, UnicodeEncodeError):
        return None


class UnixTable:
    """See the module."""

    is_pattern = False

    def __init__(self, text: str, options: OpenOptions) -> None:
        """Raises TableError for an unknown table, or if the process outside of the jail cannot be made."""
        self.name = f"unix:{text}"
        if text not in ("passwd.byname", "group.byname"):
            raise TableError(f"unknown table: {self.name}")
        self._kind = text
        self._fold = options.fold
        self._outside: _Outside | None = None
        if options.jailed:
            try:
                self._outside = _Outside(text, self.name)
            except OSError as error:
                raise TableError(f"{self.name}: {error.strerror}") from None

    async def lookup(self, key: str) -> str | None:
        """The line of ``key`` in the form of the file; raises LookupFailed."""
        if self._fold:
            key = fold_key(key)
        if not key or "\0" in key:
            return None
        if self._outside is not None:
            return await self._outside.ask(key)
        try:
            return _entry(self._kind, key)
        except OSError as error:
            raise LookupFailed(self.name, error.strerror or str(error)) from None

    def close(self) -> None:
        """The process outside ends, too."""
        if self._outside is not None:
            self._outside.close()


class _Outside:
    """The worker's side: questions have a number, answers come in any order."""

    def __init__(self, kind: str, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[int, asyncio.Future[str | None]] = {}
        self._number = 0
        import grp  # noqa: F401 - nobody may not be able to read the installation
        import pwd  # noqa: F401

        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            try:
                _serve(theirs, kind)
            finally:
                os._exit(0)
        theirs.close()
        self._socket.setblocking(False)

    async def ask(self, key: str) -> str | None:
        """One question; raises LookupFailed."""
        import asyncio

        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            loop.add_reader(self._socket.fileno(), self._answer)
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        future: asyncio.Future[str | None] = loop.create_future()
        try:
            self._socket.send(number.to_bytes(4, "big") + key.encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise LookupFailed(self._name, error.strerror or str(error)) from None
        self._waiting[number] = future
        timer = loop.call_later(_TIME_LIMIT_S, self._fail, number, "no answer in time")
        try:
            return await future
        finally:
            timer.cancel()
            self._waiting.pop(number, None)

    def _fail(self, number: int, reason: str) -> None:
        future = self._waiting.get(number)
        if future is not None and not future.done():
            future.set_exception(LookupFailed(self._name, reason))

    def _answer(self) -> None:
        try:
            data = self._socket.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            assert self._loop is not None
            self._loop.remove_reader(self._socket.fileno())
            for number in list(self._waiting):
                self._fail(number, "the process outside of the jail is gone")
            os.kill(os.getpid(), signal.SIGHUP)  # a successor will have one
            return
        future = self._waiting.get(int.from_bytes(data[:4], "big"))
        if future is None or future.done():
            return
        text = data[5:].decode("utf-8", "surrogateescape")
        if data[4:5] == b"+":
            future.set_result(text)
        elif data[4:5] == b"-":
            future.set_result(None)
        else:
            future.set_exception(LookupFailed(self._name, text))

    def close(self) -> None:
        """End it."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket.fileno())
        self._socket.close()


def _serve(link: socket.socket, kind: str) -> None:
    """The process outside: answers until the worker is gone."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    keep = link.fileno()
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
    try:
        from setproctitle import setproctitle

        setproctitle(f"accounts -n {kind}")
    except ImportError:
        pass
    os.chdir("/")
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    while data := link.recv(_LARGEST):
        try:
            found = _entry(kind, data[4:].decode("utf-8", "surrogateescape"))
            answer = b"-" if found is None else b"+" + found.encode("utf-8", "surrogateescape")
        except OSError as error:
            answer = b"!" + (error.strerror or str(error)).encode("utf-8", "surrogateescape")
        link.send(data[:4] + answer)
