"""Delivery to files and commands: of aliases, .forward files and mailbox_command.

Source: local(8) EXTERNAL COMMAND DELIVERY, EXTERNAL FILE DELIVERY, DELIVERY RIGHTS.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable

from estafeta.config.expand import ExpandError, expand
from estafeta.daemons.local.attempt import Attempt, State
from estafeta.daemons.local.settings import Settings
from estafeta.delivery.command import Command, command_argv, judge, run_command
from estafeta.delivery.mailbox import original_of, trace_headers
from estafeta.delivery.maildir import MaildirMessage, MaildirWriter
from estafeta.delivery.mbox import MboxError, MboxJob, MboxWriter, from_line
from estafeta.mail.address import address_literal
from estafeta.mail.text import to_text
from estafeta.system.privilege import User, find_user


def expanded(template: str, attempt: Attempt, state: State, user: User | None, allowed: frozenset[str], delimiter: str) -> str:
    """``template`` with $user, $home, $extension ...; other characters than ``allowed`` become underscores in the values."""
    address = state.address
    values = {
        "user": address.user, "local": address.local, "domain": address.domain, "extension": address.extension,
        "recipient": to_text(address.whole), "recipient_delimiter": delimiter[:1] if address.extension else "",
        "home": user.home if user else "", "shell": user.shell if user else "",
    }  # fmt: skip

    def value(name: str) -> str | None:
        found = values.get(name, "")
        return "".join(c if c in allowed else "_" for c in found).replace("$", "$$") or None

    return expand(template, value)


class External:
    """See the module."""

    def __init__(self, settings: Settings, maildirs: MaildirWriter, warn: Callable[[str], None]) -> None:
        self.settings = settings
        self.maildirs = maildirs
        self._mboxes = MboxWriter()
        self._warn = warn

    def head(self, attempt: Attempt, state: State, kind: str) -> bytes:
        """The headers on top, for ``kind`` command or file of prepend_delivered_header."""
        settings = self.settings
        envelope = attempt.delivery.request.envelope
        return trace_headers(
            envelope,
            original=original_of(attempt.recipient) if settings.enable_original_recipient else b"",
            delivered=attempt.delivered if kind in settings.prepend else b"",
        )

    async def command(self, attempt: Attempt, state: State, text: str, rights: User) -> None:
        """Run ``text`` as ``rights``."""
        if attempt.delivery.request.trace:
            attempt.sent(state, f"delivers to command: {text}")
            return
        settings = self.settings
        command = Command(
            text, rights.uid, rights.gid, self._environment(attempt, state, rights), self._directory(attempt, state),
            settings.command_time_limit_s, command_argv(text, settings.command_shell),
        )  # fmt: skip
        envelope = attempt.delivery.request.envelope
        head = from_line(envelope.sender, time.time()) + self.head(attempt, state, "command")
        try:
            end = await run_command(command, (head, *attempt.source.chunks()))
        except OSError as error:
            self._warn(f"{envelope.queue_id}: command {text}: {error}")
            attempt.failed(state, "4.3.0", f"cannot run command: {error.strerror}")
            return
        found = judge(end, text)
        if found.dsn.startswith("2"):
            attempt.sent(state, found.text)
        else:
            attempt.failed(state, found.dsn, found.text)

    def _directory(self, attempt: Attempt, state: State) -> str | None:
        settings = self.settings
        if not settings.command_directory:
            return None
        user = find_user(state.address.user)
        return expanded(settings.command_directory, attempt, state, user, settings.directory_filter, settings.delimiter) or None

    def _environment(self, attempt: Attempt, state: State, rights: User) -> dict[str, str]:
        settings = self.settings
        envelope = attempt.delivery.request.envelope
        address = state.address
        values = {
            "USER": address.user, "LOGNAME": address.user, "LOCAL": address.local, "EXTENSION": address.extension,
            "DOMAIN": address.domain, "RECIPIENT": to_text(address.whole), "SENDER": to_text(state.sender) or "MAILER-DAEMON",
            "ORIGINAL_RECIPIENT": to_text(original_of(attempt.recipient)), "CLIENT_HOSTNAME": envelope.client_name,
            "CLIENT_ADDRESS": address_literal(envelope.client_address), "CLIENT_HELO": envelope.helo_name,
            "CLIENT_PROTOCOL": envelope.protocol, "SASL_METHOD": envelope.sasl_method,
            "SASL_USERNAME": envelope.sasl_username, "SASL_SENDER": envelope.sasl_sender,
        }  # fmt: skip
        if state.rights is not None and state.source != "include":
            values |= {"HOME": rights.home, "SHELL": rights.shell}
        allowed = settings.command_filter
        safe = {name: "".join(c if c in allowed else "_" for c in value) for name, value in values.items() if value}
        return settings.export | safe

    async def file(self, attempt: Attempt, state: State, path: str, rights: User) -> None:
        """Append to ``path``, or deliver into it when it is a maildir, as ``rights``."""
        if path.endswith("/"):
            await self.maildir(attempt, state, path, rights)
            return
        await self.mbox(attempt, state, path, rights, "file", f"delivered to file: {path}", owner=None, group=rights.gid)

    async def mbox(self, attempt: Attempt, state: State, path: str, rights: User, kind: str, text: str, *,
                   owner: int | None, group: int) -> None:  # fmt: skip
        """Append to the mailbox file ``path``."""
        if attempt.delivery.request.trace:
            attempt.sent(state, text.replace("delivered", "delivers", 1))
            return
        settings = self.settings
        envelope = attempt.delivery.request.envelope
        head = from_line(envelope.sender, time.time()) + self.head(attempt, state, "file")
        is_file = kind == "file"
        failing = f"cannot append message to file {path}: " if is_file else f"cannot update mailbox {path} for user {rights.name}. "
        job = MboxJob(path, head, settings.mailbox_limit, owner, settings.lock, special_files=is_file, failing=failing)
        try:
            await self._mboxes.append(job, attempt.source.chunks(), rights.uid, group)
        except MboxError as error:
            attempt.failed(state, error.dsn, error.text)
        else:
            attempt.sent(state, text)

    async def maildir(self, attempt: Attempt, state: State, path: str, rights: User) -> None:
        """Deliver into a maildir."""
        if attempt.delivery.request.trace:
            attempt.sent(state, "delivers to maildir")
            return
        future: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
        head = self.head(attempt, state, "file")
        self.maildirs.add(
            MaildirMessage(path, rights.uid, rights.gid, head, attempt.source.chunks(), future.set_result)
        )
        error = await future
        if error is None:
            attempt.sent(state, "delivered to maildir")
        elif error.errno in (errno.EDQUOT, errno.EFBIG):
            attempt.failed(state, "5.2.2", f"maildir delivery failed: {error.strerror}")
        else:
            where = error.filename2 or error.filename or path
            attempt.failed(state, "4.2.0", f"maildir delivery failed: create maildir file {where}: {error.strerror}")


__all__ = ["ExpandError", "External", "expanded"]
