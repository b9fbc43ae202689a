"""The worker's side of smtpd: sockets become sessions, time-outs, and what all sessions share."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import Any

from estafeta.clients.postmaster import Postmaster
from estafeta.clients.rewrite import RewriteClient
from estafeta.clients.verify import VerifyClient
from estafeta.config.restrictions import restriction_problems
from estafeta.daemons.smtpd import starttls
from estafeta.daemons.smtpd.access import Access
from estafeta.daemons.smtpd.authentication import Authentication
from estafeta.daemons.smtpd.events import KINDS
from estafeta.daemons.smtpd.footer import Footer
from estafeta.daemons.smtpd.limits import ClientLimits
from estafeta.daemons.smtpd.local_clients import LocalClients
from estafeta.daemons.smtpd.other_client import OtherClients
from estafeta.daemons.smtpd.proxy import ProxyFilter
from estafeta.daemons.smtpd.session import Session
from estafeta.daemons.smtpd.settings import read_settings
from estafeta.daemons.smtpd.stress import Stress
from estafeta.dns.client_name import ClientName, NameStatus, find_client_name
from estafeta.dns.resolver import Resolver
from estafeta.ipc.channel import Channel
from estafeta.ipc.messages import CleanupFlag
from estafeta.mail.queue_id import QueueIdMaker
from estafeta.mail.transcript import Transcript
from estafeta.service.daemon import Daemon
from estafeta.tables.match_list import DomainList, StringList

_TICK_S = 1.0
_NAME_MEMORY_S = 10.0
_SPACE_MEMORY_S = 1.0


class Smtpd(Daemon):
    """smtpd(8)."""

    limits_connections = True

    cleanup: Channel

    def prepare(self) -> None:
        config = self.config
        self.settings = read_settings(config, self.log.warning)
        self.tls_context = starttls.open_context(config, self.settings.tls, self.log.warning)
        self._options = self.table_options()
        self._resolver = Resolver()
        self._resolver.preload()
        self.sessions: set[Session] = set()
        self.last_commands: dict[int, str] = {}
        self.ids = QueueIdMaker(os.getpid(), time.time_ns, long=self.settings.long_queue_ids)
        self.postmaster = Postmaster(config, "SMTP server", KINDS, self.ids, self.log)
        self.now = time.monotonic
        self._stress = Stress(self, self.settings)
        self._stream = 0
        self._names: dict[str, tuple[float, ClientName]] = {}
        self._space = (0.0, 0)
        # Tables are opened here, with the master's privileges; the channel they use comes with the loop.
        self._rewrite_channel = self.context.channel("rewrite")
        self.forbidden_commands = StringList(config.get("smtpd_forbidden_commands"), self._options, "smtpd_forbidden_commands")
        for name, severity, text in restriction_problems(config):
            if severity == "fatal":
                raise config.error(name, text)
        verify = VerifyClient(self.context.channel(config.get("address_verify_service_name")))
        self.access = Access(config, self._options, RewriteClient(self._rewrite_channel), self.log.warning, self._resolver, verify)
        for name in self.access.planned:
            self.log.warning(f"restriction {name} is set but not implemented")
        self.authentication: Authentication | None = None
        if config.bool("smtpd_sasl_auth_enable") and "auth" not in map(str.lower, config.words("smtpd_discard_ehlo_keywords")):
            self.authentication = Authentication(config, self._options, self.log.warning)
        footer = Footer(config, self._options, self.log.warning)
        self.footer = footer if footer else None
        self.limits = ClientLimits(config, self._options, self.context.service.name, self._anvil)
        self.proxy_filter = ProxyFilter(config, self.log.warning) if config.get("smtpd_proxy_filter") else None
        self.other_clients = OtherClients(config, self._options)
        self.local_clients = LocalClients(config, self._options)
        self.fast_flush_domains = DomainList(
            config.get("fast_flush_domains"), self._options, "fast_flush_domains",
            match_parents="fast_flush_domains" in config.words("parent_domain_matches_subdomains"),
        )  # fmt: skip
        options = config.words("receive_override_options")
        flags = CleanupFlag.FILTER | CleanupFlag.MAP | CleanupFlag.BCC
        if "no_address_mappings" in options:
            flags &= ~(CleanupFlag.MAP | CleanupFlag.BCC)
        if "no_header_body_checks" in options:
            flags &= ~CleanupFlag.FILTER
        self.cleanup_flags = int(flags)
        self._min_free = config.size("queue_minfree")

    def _anvil(self) -> Channel | None:
        return self.context.channel("anvil") if self.context.has_service("anvil") else None

    async def start(self) -> None:
        self.cleanup = self.context.channel(self.config.get("cleanup_service_name"))
        self.qmgr = self.context.channel(self.config.get("queue_service_name"))
        self._timer = self.context.loop.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            now = self.now()
            self._stress.tick(now)
            for session in [session for session in self.sessions if session.deadline < now]:
                session.time_out()

    def at_limit(self) -> None:
        self._stress.begin()

    def on_socket(self, link: socket.socket, peer: Any) -> None:
        if link.family == socket.AF_UNIX:
            link.close()
            return
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        address = str(peer[0])
        if address.startswith("::ffff:") and "." in address:
            address = address[7:]
        session = Session(self, link, address, str(peer[1]))
        if self.access.asks_policy_servers or self.authentication is not None:
            here = link.getsockname()
            session.facts.server_address, session.facts.server_port = str(here[0]).removeprefix("::ffff:"), str(here[1])
        self.sessions.add(session)
        self.context.client_opened()
        session.start()

    def tell_postmaster(self, transcript: Transcript, where: str, reason: str) -> None:
        """A session is over; something in it may be of interest."""
        if self.postmaster.concerns(transcript):
            self.run_soon(self.postmaster.tell(self.cleanup, transcript, where, reason=_cause(reason)))

    def in_hand(self) -> bool:
        return self.postmaster.pending > 0

    def ended(self, session: Session) -> None:
        """A session closed itself."""
        self.sessions.discard(session)
        self.last_commands.pop(session.number, None)
        self.context.client_closed()

    async def stop(self) -> None:
        self._timer.cancel()
        for session in list(self.sessions):
            session.reply_now(b"421 4.3.2 " + self.settings.myhostname.encode() + b" Service shutting down")
            session.close()
        self.access.close()
        if self.authentication is not None:
            self.authentication.server.close()
        self._resolver.close()

    def next_stream(self) -> int:
        """A number for a streamed message on the channel to cleanup."""
        self._stream += 1
        return self._stream

    async def client_name(self, address: str) -> ClientName:
        """Who is at ``address``; remembered for a few seconds."""
        known = self._names.get(address)
        now = self.now()
        if known is not None and known[0] > now:
            return known[1]
        try:
            found = await find_client_name(self._resolver, address)
        except (OSError, ValueError) as error:
            self.log.warning(f"name of {address}: {error}")
            return ClientName("unknown", "unknown", NameStatus.TEMPORARY, NameStatus.TEMPORARY)
        if len(self._names) > 10000:
            self._names.clear()
        self._names[address] = (now + _NAME_MEMORY_S, found)
        return found

    def has_space(self, size: int) -> bool:
        """queue_minfree, and one and a half times the announced size, must be free in the queue's file system."""
        now = self.now()
        if self._space[0] < now:
            stat = os.statvfs(self.context.queue_directory)
            self._space = (now + _SPACE_MEMORY_S, stat.f_bavail * stat.f_frsize)
        free = self._space[1]
        needed = max(self._min_free, (self.settings.message_size_limit * 3) // 2, size)
        return free >= needed


def _cause(reason: str) -> str:
    """``lost connection after DATA (5 bytes)`` without the place."""
    return reason.partition(" after ")[0]
