"""What happens to a local address: alias, user with .forward, mailbox, unknown.

Source: local(8), aliases(5). Invariant: an expansion ends: an alias does not expand twice on one path, and depth is limited.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from estafeta.clients.rewrite import RewriteClient
from estafeta.config.expand import ExpandError
from estafeta.daemons.local.attempt import Address, Attempt, State
from estafeta.daemons.local.external import External, expanded
from estafeta.daemons.local.forward import Unreadable, read_forward, read_include
from estafeta.daemons.local.mailbox import Mailbox
from estafeta.daemons.local.settings import Settings
from estafeta.daemons.local.targets import Kind, Target, parse_lines, parse_targets
from estafeta.ipc.channel import Channel, ServiceLost
from estafeta.ipc.messages import NOTIFY_NEVER, NOTIFY_SUCCESS, Recipient, Rewrite, Rewritten
from estafeta.mail.address import split_address, split_extension
from estafeta.mail.text import to_bytes, to_text
from estafeta.system.privilege import User, find_user
from estafeta.tables.table import LookupFailed

_DEPTH_MOST = 100
_MISCONFIGURED = "mail system configuration error"
_REQUIRED = frozenset(("postmaster", "mailer-daemon"))


def local_address(whole: bytes, settings: Settings) -> Address:
    """Take an address apart as local(8) does."""
    local, domain = split_address(whole)
    user, extension = split_extension(local.lower(), to_bytes(settings.delimiter), settings.owner_request_special)
    return Address(whole, to_text(local.lower()), to_text(user), to_text(extension or b""), to_text(domain or b""))


class Expander:
    """See the module."""

    def __init__(
        self, settings: Settings, external: External, mailbox: Mailbox, rewrite: Channel, warn: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._external = external
        self._mailbox = mailbox
        self._rewrite = rewrite
        self._routes = RewriteClient(rewrite)
        self._warn = warn

    async def recipient(self, attempt: Attempt, state: State) -> None:
        """Deliver to ``state.address``."""
        name = state.address.local
        if state.depth > _DEPTH_MOST:
            self._warn(f"possible alias database loop for {name}")
            attempt.failed(state, "5.4.6", f"possible alias database loop for {name}")
            return
        try:
            if not state.directly and await self._alias(attempt, state):
                return
            await self._user(attempt, state)
        except LookupFailed as error:
            self._warn(str(error))
            attempt.failed(state, "4.3.0", "alias database unavailable" if not state.directly else _MISCONFIGURED)

    # -- aliases ------------------------------------------------------------------------------------------------------

    async def _find_alias(self, address: Address) -> tuple[str, str, str] | None:
        """Key, value and the file of the table; raises LookupFailed."""
        maps = self._settings.alias_maps
        keys = [address.local] if address.user == address.local else [address.local, address.user]
        for key in keys:
            for table, path in zip(maps.tables, self._settings.alias_paths, strict=True):
                value = await table.lookup(key)
                if value is not None:
                    return key, value, path
        return None

    async def _alias(self, attempt: Attempt, state: State) -> bool:
        settings = self._settings
        found = await self._find_alias(state.address)
        if found is None:
            return False
        name, value, path = found
        if state.aliases and state.aliases[-1] == name:
            return False  # an alias that lists itself means the user
        if name in state.aliases:
            parent = state.aliases[-1]
            self._warn(f"alias database loop for {parent}")
            there = replace(state, address=local_address(to_bytes(f"{parent}@{state.address.domain}"), settings))
            attempt.failed(there, "5.4.6", f"alias database loop for {parent}")
            return True
        if attempt.is_duplicate(f"alias {name} {state.sender!r}", settings.duplicate_limit):
            return True  # done in another branch of the expansion
        try:
            rights = self._owner(path)
        except OSError as error:
            self._warn(f"cannot find alias database owner: {error}")
            attempt.failed(state, "4.3.0", "cannot find alias database owner")
            return True
        below = replace(state, source="alias", aliases=(*state.aliases, name), rights=rights)
        owner = await settings.alias_maps.find(f"owner-{name}")
        if owner is not None:
            below = replace(below, sender=await self._owner_sender(name, owner, state), has_owner=True)
        elif settings.reset_owner_alias:
            below = replace(below, sender=attempt.delivery.request.envelope.sender, has_owner=False)
        targets = parse_targets(value)
        if not targets:
            self._warn(f"no destinations in alias {name}")
            attempt.failed(state, "5.3.5", _MISCONFIGURED)
        extension = state.address.extension if settings.propagate_alias and name != state.address.local else ""
        await self._targets(attempt, below, targets, extension)
        return True

    def _owner(self, path: str) -> User | None:
        """On whose behalf the commands of an alias file act: its owner's, unless that is root."""
        if not path:
            return None
        for name in (path, path + ".db", path + ".lmdb"):
            if os.path.exists(name):
                uid = os.stat(name).st_uid
                return None if uid == 0 else find_user(str(uid))
        return None

    async def _owner_sender(self, name: str, value: str, state: State) -> bytes:
        owner = to_bytes(f"owner-{name}")
        if self._settings.expand_owner_alias:
            addresses = [target.value for target in parse_targets(value) if target.kind is Kind.ADDRESS]
            if len(addresses) == 1:
                owner = to_bytes(addresses[0])
        return await self._standard(owner)

    # -- users --------------------------------------------------------------------------------------------------------

    async def _user(self, attempt: Attempt, state: State) -> None:
        settings = self._settings
        name = state.address.user
        user = find_user(name) if name and not name.isdigit() and "/" not in name else None
        mine = name in (state.forwarded_by, f"\\{state.forwarded_by}") if state.forwarded_by else False
        if user is not None and not state.directly and not mine and await self._forward(attempt, state, user):
            return
        if attempt.is_duplicate(f"mailbox {state.address.local}", settings.duplicate_limit):
            return
        if await self._mailbox.by_transport(
            attempt, state, settings.mailbox_transport_maps, settings.mailbox_transport
        ):
            return
        if user is None:
            await self._unknown(attempt, state)
        else:
            await self._mailbox.deliver(attempt, state, user)

    async def _forward(self, attempt: Attempt, state: State, user: User) -> bool:
        settings = self._settings
        try:
            paths = [
                expanded(word, attempt, state, user, settings.forward_filter, settings.delimiter)
                for word in settings.forward_path.replace(",", " ").split()
            ]
            found = read_forward([path for path in dict.fromkeys(paths) if path], user)
        except ExpandError as error:
            self._warn(f"forward_path: {error}")
            attempt.failed(state, "4.3.5", _MISCONFIGURED)
            return True
        except Unreadable as error:
            self._warn(str(error))
            return False
        if found is None:
            return False
        if attempt.is_duplicate(f"forward {user.name} {state.sender!r}", settings.duplicate_limit):
            return True
        path, text = found
        targets = parse_lines(text)
        if not targets:
            return False
        keep = settings.propagate_forward and not path.endswith(state.address.extension or "/")
        below = replace(state, source="forward", forwarded_by=state.address.user, rights=user)
        await self._targets(attempt, below, targets, state.address.extension if keep else "")
        return True

    async def _unknown(self, attempt: Attempt, state: State) -> None:
        settings = self._settings
        if await self._mailbox.by_transport(
            attempt, state, settings.fallback_transport_maps, settings.fallback_transport
        ):
            return
        name = state.address.local
        if settings.luser_relay and name not in _REQUIRED:
            allowed = settings.forward_filter | frozenset("!@%-_=+:,./")
            text = expanded(settings.luser_relay, attempt, state, None, allowed, settings.delimiter)
            await self._targets(attempt, replace(state, rights=None, source="alias"), parse_targets(text), "")
        elif name in _REQUIRED:
            self._warn(f"required alias not found: {name}")
            attempt.sent(state, "discarded")
        else:
            attempt.failed(state, "5.1.1", f'unknown user: "{name}"')

    # -- targets ------------------------------------------------------------------------------------------------------

    async def _targets(self, attempt: Attempt, state: State, targets: list[Target], extension: str) -> None:
        for target in targets:
            if target.kind is Kind.ADDRESS:
                await self._address(attempt, state, target.value, extension)
            elif target.kind is Kind.INCLUDE:
                await self._include(attempt, state, target.value)
            else:
                await self._external_target(attempt, state, target)

    async def _external_target(self, attempt: Attempt, state: State, target: Target) -> None:
        settings = self._settings
        rights = state.rights or settings.default_user
        is_command = target.kind is Kind.COMMAND
        allowed = settings.allow_commands if is_command else settings.allow_files
        if state.source not in allowed:
            attempt.failed(state, "5.7.1", f"mail to {'command' if is_command else 'file'} is restricted")
        elif rights is None or (rights.uid == 0 and os.getuid() == 0):
            self._warn("default_privs: unknown or privileged user")
            attempt.failed(state, "4.3.5", _MISCONFIGURED)
        elif attempt.is_duplicate(f"{target.kind} {rights.uid} {target.value}", settings.duplicate_limit):
            return
        elif is_command:
            await self._external.command(attempt, state, target.value, rights)
        else:
            await self._external.file(attempt, state, target.value, rights)

    async def _include(self, attempt: Attempt, state: State, path: str) -> None:
        if not path.startswith("/"):
            self._warn(f":include:{path} uses a relative path")
            attempt.failed(state, "5.3.5", _MISCONFIGURED)
            return
        if attempt.is_duplicate(f"include {path}", self._settings.duplicate_limit):
            return
        try:
            text, uid = read_include(path, state.rights)
        except OSError as error:
            self._warn(f"unable to lookup :include: file {path}: {error.strerror}")
            attempt.failed(state, "5.3.5", _MISCONFIGURED)
            return
        rights = None if uid == 0 else find_user(str(uid))
        targets = parse_lines(text)
        if not targets:
            attempt.sent(state, "discarded")
        await self._targets(attempt, replace(state, source="include", rights=rights), targets, "")

    async def _address(self, attempt: Attempt, state: State, text: str, extension: str) -> None:
        directly = text.startswith("\\")
        try:
            address = await self._standard(to_bytes(text.removeprefix("\\")))
            if extension and self._settings.delimiter:
                local, domain = split_address(address)
                tail = b"" if domain is None else b"@" + domain
                address = local + to_bytes(self._settings.delimiter[0] + extension) + tail
            route = await self._routes.resolve(address, state.sender)
        except ServiceLost as error:
            self._warn(str(error))
            attempt.failed(state, "4.3.0", "address rewriting service unavailable")
            return
        if route.failed:
            attempt.failed(state, "4.3.0", "address resolver failure")
            return
        there = local_address(route.recipient or address, self._settings)
        indirect = state.has_owner or state.source == "include"
        if route.transport == attempt.delivery.request.transport and (directly or not indirect):
            await self.recipient(attempt, state.at(there, directly=directly))
            return
        recipients = attempt.forwards.setdefault(state.sender, [])
        if not any(known.address == there.whole for known in recipients):
            mine = attempt.recipient
            if state.has_owner:
                # A mailing list: from here on the owner answers for the mail (RFC 3461 section 5.2.7.3).
                recipients.append(Recipient(there.whole))
            else:
                # The sender hears of the expansion, not of each delivery behind it.
                notify = mine.notify & ~NOTIFY_SUCCESS
                if mine.notify and not notify:
                    notify = NOTIFY_NEVER
                recipients.append(Recipient(there.whole, mine.original or mine.address, notify, mine.orcpt))

    async def _standard(self, address: bytes) -> bytes:
        """The address in standard form; raises ServiceLost."""
        reply = await self._rewrite.call(Rewrite("local", address))
        return reply.address if isinstance(reply, Rewritten) and reply.address else address
