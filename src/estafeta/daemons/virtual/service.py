"""virtual(8): mailbox and owner of each recipient, then maildir or mbox.

Source: virtual(8), postconf(5) virtual_*. All look-ups use the folded full address (canonical form), in the order address with
extension, without it, @domain. Unlike local(8) it does not look for its own Delivered-To: neither does Postfix's.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from dataclasses import dataclass

from estafeta.config.errors import ConfigError
from estafeta.daemons.virtual.settings import Settings, read_settings
from estafeta.delivery.agent import DeliveryAgent
from estafeta.delivery.locking import lock_policy, parse_methods
from estafeta.delivery.mailbox import Source, original_of, trace_headers
from estafeta.delivery.maildir import MaildirMessage, MaildirWriter
from estafeta.delivery.mbox import MboxError, MboxJob, MboxWriter, from_line
from estafeta.delivery.report import Delivery
from estafeta.mail.text import to_text
from estafeta.spool.content import ContentReader
from estafeta.tables.maps import BARE, DOMAIN, FULL, Maps
from estafeta.tables.table import LookupFailed

RELAY = "virtual"
_ORDER = (FULL, BARE, DOMAIN)
_FOR_GOOD = frozenset((errno.EDQUOT, errno.EFBIG))
_MISCONFIGURED = "mail system configuration error"


class _Misconfigured(Exception):
    """Logged already; the recipient is deferred."""


@dataclass(frozen=True, slots=True)
class _Mailbox:
    path: str
    uid: int
    gid: int


class Virtual(DeliveryAgent):
    """virtual(8)."""

    runs_as_root = True
    may_jail = False

    def prepare(self) -> None:
        config = self.config
        options = self.table_options()
        self.settings: Settings = read_settings(config, options)
        try:
            methods = parse_methods(config.words("virtual_mailbox_lock"))
        except ValueError as error:
            raise ConfigError(f"virtual_mailbox_lock: {error}", config.path) from None
        self.lock = lock_policy(config, methods)

    async def start(self) -> None:
        loop = self.context.loop
        self.reader = ContentReader(self.context.queue_directory)
        self.maildirs = MaildirWriter(os.uname().nodename, loop.call_soon, loop.call_soon_threadsafe)
        self.mboxes = MboxWriter()
        self.serve(soft_bounce=self.settings.soft_bounce)

    async def stop(self) -> None:
        self.maildirs.close()
        self.reader.close()

    async def deliver(self, delivery: Delivery) -> None:
        """All recipients of one request."""
        source = Source(self.reader, delivery.request.place)
        for index in delivery.undecided:
            await self._recipient(delivery, index, source)
        self.reader.release(delivery.request.place)

    async def _recipient(self, delivery: Delivery, index: int, source: Source) -> None:
        recipient = delivery.recipient(index)
        address = to_text(recipient.address).lower()
        try:
            mailbox = await self._find(address)
        except LookupFailed as error:
            self.log.warning(f"{delivery.request.envelope.queue_id}: {error}")
            delivery.deferred(index, "4.3.5", _MISCONFIGURED, RELAY)
            return
        except _Misconfigured:
            delivery.deferred(index, "4.3.5", _MISCONFIGURED, RELAY)
            return
        if mailbox is None:
            delivery.bounced(index, "5.1.1", f'unknown user: "{address}"', RELAY)
            return
        if delivery.request.trace:
            delivery.sent(index, f"delivers to {'maildir' if mailbox.path.endswith('/') else 'mailbox'}", RELAY)
            return
        original = original_of(recipient) if self.settings.enable_original_recipient else b""
        head = trace_headers(delivery.request.envelope, original=original, delivered=recipient.address)
        if mailbox.path.endswith("/"):
            await self._maildir(delivery, index, mailbox, head, source)
        else:
            await self._mbox(delivery, index, mailbox, head, source)

    # -- who and where ------------------------------------------------------------------------------------------------

    async def _find(self, address: str) -> _Mailbox | None:
        settings = self.settings
        path = await self._look_up(settings.mailbox_maps, address)
        if path is None:
            return None
        uid = await self._owner(settings.uid_maps, address, "virtual_uid_maps", "uid", settings.minimum_uid)
        gid = await self._owner(settings.gid_maps, address, "virtual_gid_maps", "gid", min(1, settings.minimum_uid))
        base = settings.base
        return _Mailbox(f"{base}/{path}" if base else path, uid, gid)

    async def _look_up(self, maps: Maps, address: str) -> str | None:
        settings = self.settings
        match = await maps.find_address(
            address,
            extension_delimiter=settings.delimiter,
            owner_request_special=settings.owner_request_special,
            order=_ORDER,
        )
        return None if match is None else match.value

    async def _owner(self, maps: Maps, address: str, parameter: str, kind: str, minimum: int) -> int:
        value = await self._look_up(maps, address)
        if value is None:
            self.log.warning(f"recipient {address}: not found in {parameter}")
            raise _Misconfigured
        if not (value.isascii() and value.isdigit()) or not minimum <= int(value) < 2**32 - 1:
            self.log.warning(f"recipient {address}: bad {kind} {value} in {parameter}")
            raise _Misconfigured
        return int(value)

    # -- delivery -----------------------------------------------------------------------------------------------------

    async def _maildir(self, delivery: Delivery, index: int, mailbox: _Mailbox, head: bytes, source: Source) -> None:
        limit = self.settings.mailbox_limit
        future: asyncio.Future[OSError | None] = self.context.loop.create_future()
        error: OSError | None
        if limit and len(head) + source.place.content_length > limit * 2:
            error = OSError(errno.EFBIG, "File too large")
        else:
            self.maildirs.add(
                MaildirMessage(mailbox.path, mailbox.uid, mailbox.gid, head, source.chunks(), future.set_result)
            )
            error = await future
        if error is None:
            delivery.sent(index, "delivered to maildir", RELAY)
        elif error.errno in _FOR_GOOD:
            delivery.bounced(index, "5.2.2", f"maildir delivery failed: {error.strerror}", RELAY)
        else:
            place = error.filename2 or error.filename or mailbox.path
            problem = f"create maildir file {place}: {error.strerror}"
            if error.errno in (errno.EACCES, errno.EPERM):
                self.log.warning(f"maildir access problem for UID/GID={mailbox.uid}/{mailbox.gid}: {problem}")
                self.log.warning("perhaps you need to create the maildirs in advance")
            text = f"maildir delivery failed: {problem}"
            delivery.deferred(index, "4.3.0" if error.errno == errno.ENOSPC else "4.2.0", text, RELAY)

    async def _mbox(self, delivery: Delivery, index: int, mailbox: _Mailbox, head: bytes, source: Source) -> None:
        settings = self.settings
        job = MboxJob(
            mailbox.path,
            from_line(delivery.request.envelope.sender, time.time()) + head,
            settings.mailbox_limit,
            mailbox.uid if settings.strict_ownership else None,
            self.lock,
        )
        try:
            await self.mboxes.append(job, source.chunks(), mailbox.uid, mailbox.gid)
        except MboxError as error:
            text = error.text
            if error.dsn.startswith("5"):
                delivery.bounced(index, error.dsn, text, RELAY)
            else:
                delivery.deferred(index, error.dsn, text, RELAY)
        else:
            delivery.sent(index, "delivered to mailbox", RELAY)
