"""The door of the queue for every local user.

Source: showq(8), postqueue(1), postconf(5) authorized_mailq_users, authorized_flush_users. The commands are not setgid (ADR
0004), so who may do what is decided here, by the uid that the kernel names; root and mail_owner always may.

Protocol: one line, ``list``, ``flush``, ``flush_one ID`` or ``flush_site DOMAIN``; the answer is JSON lines
(``mail.queue_listing``) and at the end ``OK`` or ``NO reason``, so that a listing that was cut off is noticed.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import struct
from typing import Any

from estafeta.ipc.channel import ServiceLost
from estafeta.ipc.messages import QueueCommand, QueueCommandReply
from estafeta.mail.queue_id import is_queue_id
from estafeta.mail.queue_listing import json_line
from estafeta.service.daemon import Daemon
from estafeta.spool.listing import list_messages
from estafeta.system.privilege import find_user
from estafeta.tables.match_list import DomainList, StringList
from estafeta.tables.table import LookupFailed

REQUEST_LIMIT = 1024  # octets
REQUEST_TIMEOUT_S = 10.0
AT_ONCE = 50  # entries between two looks at the other clients
_CREDENTIALS = struct.Struct("3i")


class Showq(Daemon):
    """showq(8)."""

    max_workers = 1

    def prepare(self) -> None:
        config = self.config
        options = self.table_options()
        self.viewers = StringList(config.get("authorized_mailq_users"), options, "authorized_mailq_users")
        self.flushers = StringList(config.get("authorized_flush_users"), options, "authorized_flush_users")
        parents = "fast_flush_domains" in config.words("parent_domain_matches_subdomains")
        self.flush_domains = DomainList(
            config.get("fast_flush_domains"), options, "fast_flush_domains", match_parents=parents
        )
        self.empty_address = config.get("empty_address_recipient")
        owner = find_user(config.get("mail_owner"))
        self.trusted = {0, os.geteuid()} | ({owner.uid} if owner is not None else set())

    def on_socket(self, link: socket.socket, peer: Any) -> None:
        uid = _CREDENTIALS.unpack(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1]
        self.context.client_opened()
        self.context.loop.create_task(self._client(link, uid))

    async def _client(self, link: socket.socket, uid: int) -> None:
        try:
            reader, writer = await asyncio.open_connection(sock=link, limit=REQUEST_LIMIT)
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    line = await reader.readline()
                if line.endswith(b"\n"):
                    answer = await self._request(line.decode("utf-8", "replace").split(), uid, writer)
                    writer.write(answer.encode("utf-8", "replace") + b"\n")
                    await writer.drain()
            finally:
                writer.close()
        except (OSError, TimeoutError, ValueError):
            pass  # the client went away, or asked for nothing that makes sense
        except Exception as error:  # noqa: BLE001 - one client must not end the worker
            self.unexpected(error)
        finally:
            self.context.client_closed()

    async def _request(self, words: list[str], uid: int, writer: asyncio.StreamWriter) -> str:
        """Serve one request; the last line of the answer."""
        verb = words[0] if words else ""
        if verb not in ("list", "flush", "flush_one", "flush_site"):
            return "NO unknown request"
        viewing = verb == "list"
        try:
            allowed = uid in self.trusted or await (self.viewers if viewing else self.flushers).match(_login(uid))
        except LookupFailed as error:
            self.log.warning(str(error))
            return "NO authorization look-up failed"
        if not allowed:
            what = "view" if viewing else "flush"
            return f"DENIED User {_login(uid)}({uid}) is not allowed to {what} the mail queue"
        if viewing:
            await self._list(writer)
            return "OK"
        return await self._flush(verb, words[1] if len(words) > 1 else "")

    async def _list(self, writer: asyncio.StreamWriter) -> None:
        active = set(await self._ask("active", []) or [])
        found = list_messages(self.context.queue_directory, active, self.empty_address)
        for count, message in enumerate(found, 1):
            writer.write(json_line(message).encode("utf-8"))
            if count % AT_ONCE == 0:
                await writer.drain()
                await asyncio.sleep(0)

    async def _flush(self, verb: str, argument: str) -> str:
        if verb == "flush_one" and not is_queue_id(argument):
            return "NO Cannot flush queue - invalid queue ID"
        if verb == "flush_site":
            try:
                if not await self.flush_domains.match(argument):
                    return f'NO Flush service is not configured for destination "{argument}"'
            except LookupFailed as error:
                self.log.warning(str(error))
                return "NO table look-up failed"
        reply = await self._ask(verb, [argument] if argument else [])
        return "NO Cannot flush mail queue - mail system is down" if reply is None else "OK"

    async def _ask(self, verb: str, arguments: list[str]) -> list[str] | None:
        """The queue manager's answer; None without one."""
        try:
            reply = await self.context.channel("qmgr").call(QueueCommand(verb, arguments))
        except ServiceLost as error:
            self.log.warning(f"queue manager: {error}")
            return None
        return reply.lines if isinstance(reply, QueueCommandReply) else None


def _login(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "unknown"
