"""What is known of addresses, for how long, in an LMDB file of its own or in memory.

Source: verify(8), postconf(5) address_verify_map and address_verify_*_time. ``judge`` is pure. Invariants: an address that was
good stays good until it expires, whatever a later probe met; a damaged record is no record.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import lmdb

from estafeta.ipc.messages import VerifyStatus

PROBE_TTL_S = 1000.0  # a probe that has not come back by then is lost
MAX_TEXT = 1000
_MAP_SIZE = 1 << 30


@dataclass(frozen=True, slots=True)
class Known:
    """One address: the last result, when it came, when the last probe went out (Unix times; 0: never)."""

    status: VerifyStatus
    probed_at: float
    updated_at: float
    text: str


@dataclass(frozen=True, slots=True)
class Ages:
    """postconf(5) address_verify_*; seconds."""

    positive_expire_s: float
    positive_refresh_s: float
    negative_expire_s: float
    negative_refresh_s: float
    keep_negative: bool


def judge(known: Known | None, now: float, ages: Ages) -> tuple[Known | None, bool]:
    """What to say of an address (None: nothing is known), and whether a probe is due."""
    if known is None:
        return None, True
    is_probed = now - known.probed_at < PROBE_TTL_S
    if known.updated_at == 0:
        return None, not is_probed
    good = known.status == VerifyStatus.OK
    age = now - known.updated_at
    if age > (ages.positive_expire_s if good else ages.negative_expire_s):
        return None, not is_probed
    refresh = age > (ages.positive_refresh_s if good else ages.negative_refresh_s)
    return known, refresh and not is_probed


def after_probe(known: Known | None, status: VerifyStatus, text: str, now: float, ages: Ages) -> Known | None:
    """The record after a probe has come back; None: none is kept."""
    if known is not None and status != VerifyStatus.OK:
        said, _ = judge(known, now, ages)
        if said is not None and said.status == VerifyStatus.OK:
            return Known(known.status, 0.0, known.updated_at, known.text)  # one failed probe does not unmake a good address
    if status != VerifyStatus.OK and not ages.keep_negative:
        return None
    return Known(status, 0.0, now, text[:MAX_TEXT])


def encode(known: Known) -> bytes:
    """``status:probed:updated:text``."""
    text = f"{int(known.status)}:{known.probed_at:.0f}:{known.updated_at:.0f}:{known.text}"
    return text.encode("utf-8", "surrogateescape")


def decode(data: bytes) -> Known | None:
    """The inverse of ``encode``; None for what is damaged."""
    parts = data.decode("utf-8", "surrogateescape").split(":", 3)
    try:
        return Known(VerifyStatus(int(parts[0])), float(int(parts[1])), float(int(parts[2])), parts[3])
    except (ValueError, IndexError, OverflowError):
        return None


class Cache:
    """Addresses by key; opened before the jail, with the privileges of the master."""

    def __init__(self, path: str, owner: tuple[int, int] | None) -> None:
        """``path`` of the LMDB file (empty: in memory); ``owner`` gets it. Raises OSError."""
        self._memory: dict[bytes, bytes] = {}
        self._env: lmdb.Environment | None = None
        if not path:
            return
        try:
            self._env = self._open(path)
        except lmdb.Error:
            for leftover in (path, path + "-lock"):  # a cache: what it knew can be found out again
                if os.path.exists(leftover):
                    os.unlink(leftover)
            try:
                self._env = self._open(path)
            except lmdb.Error as error:
                raise OSError(f"open {path}: {error}") from None
        if owner is not None:
            for name in (path, path + "-lock"):
                os.chown(name, *owner)

    @staticmethod
    def _open(path: str) -> lmdb.Environment:
        return lmdb.open(path, subdir=False, map_size=_MAP_SIZE, metasync=False, mode=0o600, max_readers=4)

    def get(self, key: bytes) -> Known | None:
        """What is known."""
        if self._env is None:
            data = self._memory.get(key)
        else:
            with self._env.begin() as transaction:
                data = transaction.get(_fits(key))
        return None if data is None else decode(data)

    def put(self, key: bytes, known: Known) -> None:
        """Remember; raises OSError (disk full)."""
        if self._env is None:
            self._memory[key] = encode(known)
            return
        try:
            with self._env.begin(write=True) as transaction:
                transaction.put(_fits(key), encode(known))
        except lmdb.Error as error:
            raise OSError(f"address_verify_map: {error}") from None

    def remove(self, keys: list[bytes]) -> None:
        """Forget; raises OSError."""
        if self._env is None:
            for key in keys:
                self._memory.pop(key, None)
            return
        try:
            with self._env.begin(write=True) as transaction:
                for key in keys:
                    transaction.delete(_fits(key))
        except lmdb.Error as error:
            raise OSError(f"address_verify_map: {error}") from None

    def items(self) -> Iterator[tuple[bytes, Known | None]]:
        """Everything, damaged records as None."""
        if self._env is None:
            for key, data in list(self._memory.items()):
                yield key, decode(data)
            return
        with self._env.begin() as transaction:
            for key, data in transaction.cursor():
                yield bytes(key), decode(bytes(data))

    def close(self) -> None:
        """Done."""
        if self._env is not None:
            self._env.close()


def _fits(key: bytes) -> bytes:
    """LMDB keys have 511 octets at most: a longer address is known by its beginning and its hash."""
    if len(key) <= 511:
        return key or b"\0"
    import hashlib

    return key[:400] + hashlib.sha256(key).digest()
