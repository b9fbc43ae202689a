"""Questions about addresses, probes for those that nothing is known of, results from the queue manager.

Source: verify(8), ADDRESS_VERIFICATION_README. A probe is an empty message with the flags TRACE and PROBE: agents stop before
they deliver, and the queue manager tells this service what they met instead of making a notice. Who asks says how long it is ready
to wait; the answer comes with the result, or without one when the time is over.
"""

from __future__ import annotations

import asyncio
import os
import time

from estafeta.clients.cleanup import CleanupClient
from estafeta.config.config import Config
from estafeta.daemons.verify.cache import PROBE_TTL_S, Ages, Cache, Known, after_probe, judge
from estafeta.ipc.channel import Connection, ServiceLost
from estafeta.ipc.messages import (
    CleanupFlag,
    CleanupStatus,
    ContentFlag,
    Envelope,
    Message,
    Recipient,
    Refused,
    VerifyQuery,
    VerifyReply,
    VerifyStatus,
    VerifyUpdate,
)
from estafeta.mail.queue_id import QueueIdMaker
from estafeta.mail.text import to_bytes, to_text
from estafeta.service.daemon import Daemon
from estafeta.system import privilege

_CLEAN_AT_ONCE = 500


class Verify(Daemon):
    """verify(8)."""

    max_workers = 1

    def prepare(self) -> None:
        config = self.config
        self._ages = Ages(
            positive_expire_s=config.seconds("address_verify_positive_expire_time"),
            positive_refresh_s=config.seconds("address_verify_positive_refresh_time"),
            negative_expire_s=config.seconds("address_verify_negative_expire_time"),
            negative_refresh_s=config.seconds("address_verify_negative_refresh_time"),
            keep_negative=config.bool("address_verify_negative_cache"),
        )
        self._cleanup_interval_s = config.seconds("address_verify_cache_cleanup_interval")
        self._limit = config.int("address_verify_pending_request_limit")
        self._sender = probe_sender(config)
        self._cache = Cache(_cache_path(config), _owner(config))
        self._ids = QueueIdMaker(os.getpid(), time.time_ns, long=config.bool("enable_long_queue_ids"))
        self._waiting: dict[bytes, asyncio.Future[VerifyReply]] = {}  # who waits for a probe's result
        self._probing: dict[bytes, float] = {}  # probes under way: when they went out

    async def start(self) -> None:
        self._cleanup = CleanupClient(self.context.channel(self.config.get("cleanup_service_name")))
        self._timer = self.context.loop.create_task(self._clean())

    async def stop(self) -> None:
        self._timer.cancel()
        self._cache.close()

    def in_hand(self) -> bool:
        return bool(self._waiting)

    def on_message(self, connection: Connection, number: int, message: Message) -> None:
        if isinstance(message, VerifyQuery):
            self.answer(connection, number, self._query(message))
        elif isinstance(message, VerifyUpdate):
            self._update(message)
        else:
            connection.reply(number, Refused("verify: unknown request"))

    # -- questions ------------------------------------------------------------------------------------------------------------

    async def _query(self, query: VerifyQuery) -> Message:
        key = _key(query.address)
        now = time.time()
        record = self._cache.get(key)
        said, due = judge(record, now, self._ages)
        if due and self._may_probe(key, now):
            self._remember(key, _probed(record, now))
            self.run_soon(self._probe(query.address, key))
        if said is not None:
            return VerifyReply(said.status, said.text)
        if query.wait_s > 0 and key in self._probing:
            waiter = self._waiting.get(key)
            if waiter is None:
                waiter = self._waiting[key] = self.context.loop.create_future()
            await asyncio.wait([waiter], timeout=query.wait_s)
            if waiter.done():
                return waiter.result()
        return NOT_YET

    def _may_probe(self, key: bytes, now: float) -> bool:
        if key in self._probing and now - self._probing[key] < PROBE_TTL_S:
            return False
        if self._limit and len(self._probing) >= self._limit:
            for old in [old for old, at in self._probing.items() if now - at >= PROBE_TTL_S]:
                del self._probing[old]
            if len(self._probing) >= self._limit:
                return False
        self._probing[key] = now
        return True

    def _remember(self, key: bytes, known: Known | None) -> None:
        try:
            if known is None:
                self._cache.remove([key])
            else:
                self._cache.put(key, known)
        except OSError as error:
            self.log.warning(str(error))

    async def _probe(self, address: bytes, key: bytes) -> None:
        """Send an empty message on its way."""
        now = time.time()
        flags = int(ContentFlag.TRACE | ContentFlag.PROBE)
        envelope = Envelope(self._ids.next(), now, self._sender, [Recipient(address)], flags=flags)
        problem = ""
        try:
            reply = await self._cleanup.enqueue(envelope, b"", int(CleanupFlag.MAP), b"")
        except ServiceLost as error:
            problem = str(error)
        else:
            if reply.status != CleanupStatus.OK:
                problem = f"cleanup refused the probe: {reply.reason or CleanupStatus(reply.status).name}"
        if problem:
            self.log.warning(f"probe {to_text(address)}: {problem}")
            self._probing.pop(key, None)
            self._wake(key, NOT_YET)

    # -- results --------------------------------------------------------------------------------------------------------------

    def _update(self, update: VerifyUpdate) -> None:
        key = _key(update.address)
        self._probing.pop(key, None)
        status = VerifyStatus(update.status)
        now = time.time()
        known = after_probe(self._cache.get(key), status, update.text, now, self._ages)
        self._remember(key, known)
        self._wake(key, VerifyReply(status, update.text) if known is None else VerifyReply(known.status, known.text))

    def _wake(self, key: bytes, reply: VerifyReply) -> None:
        waiter = self._waiting.pop(key, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(reply)

    # -- housekeeping ---------------------------------------------------------------------------------------------------------

    async def _clean(self) -> None:
        """Forget what has expired."""
        while self._cleanup_interval_s > 0:
            await asyncio.sleep(self._cleanup_interval_s)
            now = time.time()
            old = [key for key, known in self._cache.items() if known is None or judge(known, now, self._ages) == (None, True)]
            for start in range(0, len(old), _CLEAN_AT_ONCE):
                self._remember_gone(old[start : start + _CLEAN_AT_ONCE])
                await asyncio.sleep(0)

    def _remember_gone(self, keys: list[bytes]) -> None:
        try:
            self._cache.remove(keys)
        except OSError as error:
            self.log.warning(str(error))


IN_PROGRESS = "Address verification in progress"
NOT_YET = VerifyReply(VerifyStatus.TODO, IN_PROGRESS)


def _key(address: bytes) -> bytes:
    """Domains are the same in any case."""
    local, at, domain = address.rpartition(b"@")
    return local + at + domain.lower()


def _probed(record: Known | None, now: float) -> Known:
    if record is None:
        return Known(VerifyStatus.TODO, now, 0.0, IN_PROGRESS)
    return Known(record.status, now, record.updated_at, record.text)


def probe_sender(config: Config) -> bytes:
    """address_verify_sender, with the local domain; empty for the null sender."""
    name = config.get("address_verify_sender").strip()
    if name in ("", "<>"):
        return b""
    return to_bytes(name if "@" in name else f"{name}@{config.get('myorigin')}")


def _cache_path(config: Config) -> str:
    """The file of address_verify_map; empty: in memory."""
    spec = config.get("address_verify_map").strip()
    if not spec:
        return ""
    kind, colon, path = spec.removeprefix("proxy:").partition(":")
    if not colon:
        kind, path = "btree", spec
    if kind == "internal":
        return ""
    if not os.path.isabs(path):
        path = os.path.join(config.get("data_directory"), path)
    return f"{path}.lmdb"


def _owner(config: Config) -> tuple[int, int] | None:
    if not privilege.is_root():
        return None
    user = privilege.find_user(config.get("mail_owner"))
    return None if user is None else (user.uid, user.gid)
