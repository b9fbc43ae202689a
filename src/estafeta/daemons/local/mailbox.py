"""A user's own mailbox: the first of mailbox_transport, mailbox_command, home_mailbox, mail_spool_directory.

Source: local(8) MAILBOX DELIVERY, DELIVERY METHOD CONTROLS.
"""

from __future__ import annotations

import os

from estafeta.daemons.local.attempt import Attempt, State
from estafeta.daemons.local.external import External, expanded
from estafeta.daemons.local.resubmit import Resubmit
from estafeta.daemons.local.settings import Settings
from estafeta.system.privilege import User
from estafeta.tables.maps import Maps


class Mailbox:
    """See the module."""

    def __init__(self, settings: Settings, external: External, resubmit: Resubmit) -> None:
        self._settings = settings
        self._external = external
        self._resubmit = resubmit

    async def by_transport(self, attempt: Attempt, state: State, maps: Maps, fixed: str) -> bool:
        """Hand the mail to the transport of ``maps`` or ``fixed``; False if there is none. Raises LookupFailed."""
        transport = await self._look_up(maps, state) or fixed
        if not transport:
            return False
        await self._resubmit.hand_over(attempt, state, transport)
        return True

    async def _look_up(self, maps: Maps, state: State) -> str | None:
        # With the extension, then without; pattern tables see the whole.
        address = state.address
        value = await maps.find(address.local)
        if value is None and address.user != address.local:
            value = await maps.find(address.user, partial=True)
        return value

    async def deliver(self, attempt: Attempt, state: State, user: User) -> None:
        """To the mailbox of ``user``; raises LookupFailed."""
        settings = self._settings
        command = await self._look_up(settings.mailbox_command_maps, state) or settings.mailbox_command
        if command:
            rights = user if user.uid != 0 else settings.default_user
            if rights is None:
                attempt.failed(state, "4.3.5", "mail system configuration error")
                return
            text = expanded(command, attempt, state, user, settings.command_filter, settings.delimiter)
            await self._external.command(attempt, state, text, rights)
        elif settings.home_mailbox:
            path = f"{user.home}/{settings.home_mailbox}"
            await self._file(attempt, state, path, user, user.gid)
        else:
            spool = settings.mail_spool_directory
            path = spool + user.name if spool.endswith("/") else f"{spool}/{user.name}"
            if spool.endswith("/"):
                path += "/"
            await self._file(attempt, state, path, user, _spool_group(spool, user))

    async def _file(self, attempt: Attempt, state: State, path: str, user: User, group: int) -> None:
        if path.endswith("/"):
            await self._external.maildir(attempt, state, path, user)
            return
        owner = user.uid if self._settings.strict_ownership and os.getuid() == 0 else None
        await self._external.mbox(
            attempt, state, path, user, "mailbox", "delivered to mailbox", owner=owner, group=group
        )


def _spool_group(spool: str, user: User) -> int:
    """The group of a spool directory that only its group may write: that is what locks and new files there need."""
    try:
        status = os.stat(spool)
    except OSError:
        return user.gid
    return status.st_gid if status.st_mode & 0o022 == 0o020 else user.gid
