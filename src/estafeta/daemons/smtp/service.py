"""smtp(8) and lmtp(8): the worker. One delivery walks the servers of its destination until every recipient has a result.

Source: man 8 smtp. A session kept from an earlier delivery is tried first. Invariants: a server is ``final`` when none will
be tried after it; what a non-final server refuses for now goes to the next one; nobody is left without a result at the end.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from estafeta.clients.postmaster import Postmaster
from estafeta.config.values import split_words
from estafeta.daemons.smtp.cache import SessionCache
from estafeta.daemons.smtp.connect import connect
from estafeta.daemons.smtp.outgoing import Outgoing, OutgoingChanges, Unacceptable
from estafeta.daemons.smtp.policy import Policy
from estafeta.daemons.smtp.secure import Security
from estafeta.daemons.smtp.session import Session
from estafeta.daemons.smtp.settings import Settings, read_settings
from estafeta.daemons.smtp.transaction import Transaction, report
from estafeta.daemons.smtp.trouble import Peer, Trouble, connect_trouble
from estafeta.delivery.agent import DeliveryAgent
from estafeta.delivery.report import Delivery
from estafeta.dns.mx import RouteFailure, route
from estafeta.dns.resolver import Resolver
from estafeta.ipc.channel import Connection, ServiceLost
from estafeta.ipc.messages import DeliverReply, DeliverRequest, Message
from estafeta.mail.queue_id import QueueIdMaker
from estafeta.mail.transcript import Transcript
from estafeta.spool.content import ContentReader
from estafeta.tables.table import LookupFailed, OpenOptions

_STOP_S = 5.0
_NOTHING_LEFT = Trouble("4.3.0", "server unavailable or unable to receive mail", throttle=True)


@dataclass(slots=True)
class _Walk:
    """How far one delivery has come. ``kept``: recipients refused for now, by a server that was not the last."""

    delivery: Delivery
    tried: set[Peer] = field(default_factory=set)
    kept: dict[int, Trouble] = field(default_factory=dict)
    outgoing: Outgoing | None = None


class Smtp(DeliveryAgent):
    """See the module."""

    settings: Settings

    def prepare(self) -> None:
        self.settings = read_settings(self.config, self.context.service.command == "lmtp")
        self.resolver = Resolver()
        self.resolver.preload()
        self.policy = Policy(self.config, self.settings, self.log.warning, self.resolver)
        self.policy.warn_at_start()
        options = OpenOptions(warn=self.log.warning, utf8=self.config.bool("smtputf8_enable"), parameter=self.config.lookup)
        changes = OutgoingChanges(self.config, options, self.log.info, self.log.warning, lmtp=self.settings.lmtp)
        self.changes = changes if changes else None
        ids = QueueIdMaker(os.getpid(), time.time_ns, long=self.config.bool("enable_long_queue_ids"))
        program = "LMTP client" if self.settings.lmtp else "SMTP client"
        self.postmaster = Postmaster(self.config, program, frozenset(("protocol",)), ids, self.log)

    async def start(self) -> None:
        self._rng = random.Random()
        self.content = ContentReader(self.context.queue_directory)
        self.sessions: set[Session] = set()
        self.cache = SessionCache(self.settings, self.policy.always_cached, self.context.loop.time)
        self.serve(soft_bounce=self.settings.soft_bounce)

    def on_message(self, connection: Connection, number: int, message: Message) -> None:
        if isinstance(message, DeliverRequest):
            self.cache.arrived(message.nexthop)
            self.context.last_activity = time.monotonic()
        self.server.handle(connection, number, message)

    def in_hand(self) -> bool:
        return self.postmaster.pending > 0

    def is_busy(self) -> bool:
        # The queue manager's connection stays open; only deliveries are work.
        return self.server.busy

    def on_lost(self, connection: Connection) -> None:
        self.cache.forget_demand()

    async def stop(self) -> None:
        deadline = self.context.loop.time() + _STOP_S
        while self.server.busy and self.context.loop.time() < deadline:
            await asyncio.sleep(0.02)
        for session in list(self.sessions):
            if session.idle:
                session.say_goodbye()
        await asyncio.sleep(0)
        for session in list(self.sessions):
            session.abandon()
        self.resolver.close()
        self.content.close()

    # -- one delivery --------------------------------------------------------------------------------------------------

    async def deliver(self, delivery: Delivery) -> None:
        """Give every recipient a result."""
        request = delivery.request
        try:
            walk = _Walk(delivery)
            if self.changes is not None:
                walk.outgoing = await self._changed(self.changes, delivery)
                if walk.outgoing is None:
                    return
            session = self.cache.take(request.nexthop)
            if session is not None and not await self._transact(session, walk, final=False):
                # What failed here for now is not tried at the same address again.
                walk.tried.add(session.peer)
            if len(delivery.reply.results) < len(request.envelope.recipients):
                await self._walk(walk)
        finally:
            self.cache.finished(request.nexthop)
            self.context.last_activity = time.monotonic()
            self.content.release(request.place)

    async def _changed(self, changes: OutgoingChanges, delivery: Delivery) -> Outgoing | None:
        """The message as it goes out; None: everybody has a result."""
        request = delivery.request
        try:
            return await changes.make(request, self.content)
        except Unacceptable as error:
            for index in delivery.undecided:
                delivery.bounced(index, error.dsn, str(error))
        except LookupFailed as error:
            self.log.warning(f"{request.envelope.queue_id}: {error}")
            delivery.all_deferred("4.3.0", "a table for outgoing mail cannot be asked")
        except OSError as error:
            self.log.warning(f"{request.envelope.queue_id}: {error}")
            delivery.all_deferred("4.3.0", f"queue file read error: {error.strerror or error}")
        return None

    async def _walk(self, walk: _Walk) -> None:
        """Try the servers in order; give up with the last trouble."""
        settings = self.settings
        delivery = walk.delivery
        nexthop = delivery.request.nexthop
        destinations = split_words(nexthop) or [nexthop]
        places = [*destinations, *settings.fallback_relay]
        trouble: Trouble | None = None
        sessions = 0
        for number, destination in enumerate(places):
            last_place = number == len(places) - 1
            fallback = number >= len(destinations)
            if fallback and trouble is not None and trouble.loop:
                break
            found = await self._peers(destination)
            if isinstance(found, Trouble):
                trouble = found
                if not last_place:
                    self.log.info(f"{delivery.request.envelope.queue_id}: {found.text}", delivery.number)
                continue
            found = [peer for peer in found if peer not in walk.tried]
            trouble = None
            for position, peer in enumerate(found):
                limit = settings.mx_session_limit
                final = last_place and (position == len(found) - 1 or (limit > 0 and sessions + 1 >= limit))
                trouble = await self._try(walk, peer, destination, final=final)
                if trouble is None:
                    sessions += 1
                if not delivery.undecided:
                    return
                if limit > 0 and sessions >= limit:
                    # The servers that are left of this destination are passed over; a fall-back relay is not.
                    sessions = 0
                    break
        await self._give_up(walk, trouble)

    async def _give_up(self, walk: _Walk, trouble: Trouble | None) -> None:
        delivery = walk.delivery
        if trouble is not None and trouble.loop and self.settings.best_mx_transport and await self._pass_on(delivery):
            return
        if not delivery.connected_at:
            delivery.connected_at = time.time()
        for index in delivery.undecided:
            last = trouble or walk.kept.get(index, _NOTHING_LEFT)
            report(delivery, index, last)
            if last.throttle and last.temporary:
                delivery.site_dead(last.dsn, last.text)

    async def _pass_on(self, delivery: Delivery) -> bool:
        """best_mx_transport: another agent delivers what would come back to us. False: it cannot be reached."""
        transport, _, nexthop = self.settings.best_mx_transport.partition(":")
        request = delivery.request
        left = delivery.undecided
        passed = DeliverRequest(
            request.place, request.envelope, transport, nexthop or request.nexthop, request.started_at, request.queued_at
        )
        try:
            answer = await self.context.channel(transport).call(passed)
        except ServiceLost:
            answer = None
        if not isinstance(answer, DeliverReply):
            delivery.all_deferred("4.3.0", "mail transport unavailable")
            return True
        wanted = set(left)
        delivery.reply.results += [result for result in answer.results if result.index in wanted]
        return True

    # -- servers -------------------------------------------------------------------------------------------------------

    async def _peers(self, destination: str) -> Sequence[Peer] | Trouble:
        """The addresses to try for one destination."""
        settings = self.settings
        if settings.lmtp:
            if destination.startswith("unix:"):
                return [Peer(settings.myhostname, destination[5:], 0)]
            destination = destination.removeprefix("inet:")
        port = self.policy.default_port
        found = await route(
            self.resolver, destination, port, lookup_mx=settings.lookup_mx, options=settings.route, rng=self._rng
        )
        if isinstance(found, RouteFailure):
            for warning in found.warnings:
                self.log.warning(warning)
            loop = found.dsn == "5.4.6" or found.text.startswith("unable to find primary relay")
            return Trouble(found.dsn, found.text, throttle=found.temporary, loop=loop)
        return [Peer(target.host, target.address, target.port) for target in found]

    async def _try(self, walk: _Walk, peer: Peer, destination: str, *, final: bool) -> Trouble | None:
        """One server: None when the conversation got as far as hello."""
        delivery = walk.delivery
        session = None
        if self.cache.has_address(peer.host, peer.address, peer.port):
            security = await self.policy.security(peer, destination)
            login = await self.policy.login(peer, destination, delivery)
            if not isinstance(security, Trouble) and not isinstance(login, Trouble):
                credentials = login.credentials if login is not None else None
                session = self.cache.take_address(peer.host, peer.address, peer.port, security, credentials)
        if session is not None:
            session.destination = delivery.request.nexthop
            stale = await self._transact(session, walk, final=final)
            if not stale:
                return None
        opened = await self._open(delivery, peer, destination)
        if isinstance(opened, Trouble):
            if opened.relay != "none":
                if not opened.temporary and not opened.loop:
                    # A refusal for good is not softened by another server.
                    for index in delivery.undecided:
                        report(delivery, index, opened)
                elif not final:
                    self.log.info(f"{delivery.request.envelope.queue_id}: {opened.text}", delivery.number)
            return opened
        await self._transact(opened, walk, final=final)
        return None

    async def _open(self, delivery: Delivery, peer: Peer, destination: str) -> Session | Trouble:
        """Connect and say hello."""
        settings = self.settings
        security = await self.policy.security(peer, destination)
        if isinstance(security, Trouble):
            return security
        opened = await self._open_with(delivery, peer, destination, security)
        if isinstance(opened, Trouble) and opened.retry_plain and _waited(delivery, settings.minimal_backoff_s):
            # Opportunistic TLS that does not work is no reason to keep mail for ever.
            opened = await self._open_with(delivery, peer, destination, self.policy.in_clear)
        return opened

    async def _open_with(
        self, delivery: Delivery, peer: Peer, destination: str, security: Security
    ) -> Session | Trouble:
        loop = self.context.loop
        settings = self.settings
        login = await self.policy.login(peer, destination, delivery)
        if isinstance(login, Trouble):
            return login
        try:
            link = await connect(loop, peer, settings, self.log.warning)
        except TimeoutError:
            return self._no_connection(delivery, connect_trouble(peer, None))
        except OSError as error:
            return self._no_connection(delivery, connect_trouble(peer, error))
        options = await self.policy.client_options(peer)
        session = Session(
            loop,
            settings,
            options,
            peer,
            delivery.request.nexthop,
            content=self.content,
            log=self.log,
            on_closed=self._closed,
            security=security,
            number=delivery.number,
            login=login,
        )
        if self.postmaster.wanted:
            session.machine.transcript = Transcript()
        self.sessions.add(session)
        try:
            if peer.port:
                await loop.create_connection(lambda: session, sock=link)
            else:
                await loop.create_unix_connection(lambda: session, sock=link)
        except OSError as error:
            session.abandon()
            return self._no_connection(delivery, connect_trouble(peer, error))
        trouble = await session.opened
        return session if trouble is None else trouble

    def _no_connection(self, delivery: Delivery, trouble: Trouble) -> Trouble:
        self.log.info(trouble.text, delivery.number)
        return trouble

    def _closed(self, session: Session) -> None:
        self.sessions.discard(session)
        self.cache.forget(session)
        transcript = session.machine.transcript
        if transcript is not None and session.had_mail and self.postmaster.concerns(transcript):
            cleanup = self.context.channel(self.config.get("cleanup_service_name"))
            first = f"Answers from {session.peer.relay} were not what the protocol allows."
            self.run_soon(self.postmaster.tell(cleanup, transcript, session.peer.relay, first=first))

    async def _transact(self, session: Session, walk: _Walk, *, final: bool) -> bool:
        """Deliver over ``session``; True when it was a kept one that turned out dead."""
        delivery = walk.delivery
        more = delivery.request.more
        # What goes wrong with a notice is told to nobody: that would be another notice.
        session.had_mail |= delivery.request.envelope.sender not in (b"", self.postmaster.sender)
        over: asyncio.Future[None] = self.context.loop.create_future()

        def ended(transaction: Transaction) -> None:
            if session.reusable and not transaction.stale:
                if self.cache.wants(session, more=more):
                    self.cache.keep(session, more=more)
                else:
                    session.say_goodbye()
            if not over.done():
                over.set_result(None)

        transaction = Transaction(
            delivery,
            delivery.undecided,
            log=self.log,
            final=final,
            kept=walk.kept,
            quit_after=lambda: session.machine.pipelining and not self.cache.wants(session, more=more),
            on_over=ended,
            outgoing=walk.outgoing,
        )
        delivery.connected_at = time.time()
        session.run(transaction)
        await over
        return transaction.stale


def _waited(delivery: Delivery, seconds: float) -> bool:
    """Whether the message had been in the queue for so long when the queue manager took it up."""
    request = delivery.request
    return request.queued_at - request.envelope.arrived_at >= seconds
