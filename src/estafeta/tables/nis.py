"""nis: tables, through the C library for NIS; without a NIS domain they hold nothing.

Source: DATABASE_README; yp_match(3); what Postfix does when no NIS domain name is set (its default alias_maps may name
``nis:mail.aliases``). The library knows only calls that wait, so they are made in a thread of their own, one at a time, with a
time limit: a server that is away is a failure of the look-up, never "not found", and holds up nobody.
"""

from __future__ import annotations

import asyncio
import ctypes
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from estafeta.tables.table import LookupFailed, OpenOptions, TableError, fold_key, is_utf8

_DOMAIN_FILE = "/proc/sys/kernel/domainname"
_LIBRARIES = ("libnsl.so.2", "libnsl.so.1")
_NO_MAP, _NO_KEY = 4, 5  # YPERR_MAP, YPERR_KEY
TIME_LIMIT_S = 10.0


def nis_domain() -> str:
    """The host's NIS domain name; empty if there is none."""
    try:
        with open(_DOMAIN_FILE, encoding="ascii", errors="replace") as stream:
            name = stream.read().strip()
    except OSError:
        return ""
    return "" if name == "(none)" else name


def open_nis(name: str, options: OpenOptions) -> EmptyNisTable | NisTable:
    """Open ``nis:name``; raises TableError."""
    domain = nis_domain()
    return NisTable(name, options, domain) if domain else EmptyNisTable(name, options)


class EmptyNisTable:
    """Finds nothing; says once why."""

    is_pattern = False

    def __init__(self, name: str, options: OpenOptions) -> None:
        self.name = f"nis:{name}"
        options.warn("NIS domain name not set - NIS lookups disabled")

    async def lookup(self, key: str) -> str | None:
        """Nothing."""
        return None

    def close(self) -> None:
        """Nothing to close."""


class NisTable:
    """A map of the host's NIS domain."""

    is_pattern = False

    def __init__(self, name: str, options: OpenOptions, domain: str) -> None:
        """Raises TableError where the library is missing."""
        self.name = f"nis:{name}"
        self._map = name.encode()
        self._domain = domain.encode()
        self._fold = options.fold
        self._utf8 = options.utf8
        self._with_nul: bool | None = None  # whether the map's keys end with a NUL; None: not known yet
        self._threads: ThreadPoolExecutor | None = None
        library = None
        for file in _LIBRARIES:
            with suppress(OSError):
                library = ctypes.CDLL(file)
                break
        if library is None:
            raise TableError("unsupported dictionary type: nis. The library libnsl is missing: apt-get install libnsl2")
        self._yp_match = library.yp_match
        self._yp_error = library.yperr_string
        self._yp_error.restype = ctypes.c_char_p
        self._free = ctypes.CDLL(None).free
        self._free.argtypes = [ctypes.c_void_p]

    async def lookup(self, key: str) -> str | None:
        """The value in the map; raises LookupFailed."""
        if self._utf8 and not is_utf8(key):
            return None
        raw = (fold_key(key) if self._fold else key).encode("utf-8", "surrogateescape")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._ask(raw)  # a command
        if self._threads is None:
            self._threads = ThreadPoolExecutor(1, "nis")
        work = loop.run_in_executor(self._threads, self._ask, raw)
        outcome = await loop.create_task(_limited(work))
        if isinstance(outcome, BaseException):
            if isinstance(outcome, TimeoutError):
                raise LookupFailed(self.name, f"no answer within {TIME_LIMIT_S:g} s")
            raise outcome
        return outcome

    def _ask(self, key: bytes) -> str | None:
        for with_nul in (False, True) if self._with_nul is None else (self._with_nul,):
            asked = key + b"\0" if with_nul else key
            value = ctypes.c_void_p()
            length = ctypes.c_int()
            code = self._yp_match(
                self._domain, self._map, asked, ctypes.c_int(len(asked)), ctypes.byref(value), ctypes.byref(length)
            )
            if code == 0:
                self._with_nul = with_nul
                found = ctypes.string_at(value, length.value) if value.value else b""
                self._free(value)
                return found.rstrip(b"\0\n").decode("utf-8", "surrogateescape")
            if code not in (_NO_KEY, _NO_MAP):
                raise LookupFailed(self.name, f"lookup error: {(self._yp_error(code) or b'').decode(errors='replace')}")
            if code == _NO_MAP:
                raise LookupFailed(self.name, "no such map in the domain of the server")
        return None

    def close(self) -> None:
        """Let the thread end."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


async def _limited(work: asyncio.Future[str | None]) -> str | BaseException | None:
    try:
        return await asyncio.wait_for(work, TIME_LIMIT_S)
    except (TimeoutError, LookupFailed) as error:
        return error
