"""One connection to one server, driven by what arrives: hello, then one transaction after the other, then QUIT.

Source: man 8 smtp; RFC 5321. The transport below it is in link.py. Invariants:
``open`` resolves once, with None or the trouble; a transaction's ``end`` is called once, whatever happens; after ``end``
the session is either idle (``reusable``) or on its way out by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from estafeta.daemons.smtp.content import WHOLE_BYTES, content_pieces, whole_content
from estafeta.daemons.smtp.fitness import unfit
from estafeta.daemons.smtp.link import Link
from estafeta.daemons.smtp.login import Login
from estafeta.daemons.smtp.secure import Security
from estafeta.daemons.smtp.settings import Settings
from estafeta.daemons.smtp.transaction import Transaction
from estafeta.daemons.smtp.trouble import (
    Peer,
    Trouble,
    lost_trouble,
    refused_trouble,
    reply_trouble,
)
from estafeta.daemons.smtp.xforward import xforward_commands
from estafeta.mail.seven_bit import SevenBit
from estafeta.mail.text import to_text
from estafeta.protocol import smtp_client as machine_events
from estafeta.protocol.smtp_client import ClientOptions, SmtpReply, State
from estafeta.protocol.smtp_client_phase import Phase, said_text
from estafeta.spool.content import ContentReader
from estafeta.system.log import Log

_SMTP_PORT = 25


class Session(Link):
    """See the module. ``key`` is for the cache of idle sessions."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: Settings,
        options: ClientOptions,
        peer: Peer,
        destination: str,
        *,
        content: ContentReader,
        log: Log,
        on_closed: Callable[[Session], None],
        security: Security,
        number: int = 0,
        login: Login | None = None,
    ) -> None:
        super().__init__(loop, settings, options, peer, destination, log=log, security=security, number=number)
        self.uses = 0
        self.opened_at = loop.time()
        self.idle = False
        self.had_mail = False  # of somebody's own, no notice
        self.queue_id = ""
        self._content = content
        self._on_closed = on_closed
        self.login = login
        self._transaction: Transaction | None = None
        self._pieces: Iterator[bytes] | None = None
        self._asks: list[bytes] = []

    # -- time ----------------------------------------------------------------------------------------------------------

    def _timed_out(self) -> None:
        if self.idle:
            self.say_goodbye()
        elif self.machine.state is State.QUITTING:
            self._drop()
        else:
            phase = self.machine.phase
            self.machine.close()
            self._lost(phase, timed_out=True)

    def _watch(self) -> None:
        """Set the time limit of what is waited for."""
        timeouts = self.settings.timeouts
        if self._handshake is not None and not self._handshake.done:
            self._limit(timeouts[Phase.STARTTLS])
            return
        phase = self.machine.phase
        limit = timeouts[phase]
        transaction = self._transaction
        if transaction is not None and self.uses > 1 and not transaction.started:
            # A kept session may be dead without having said so, and nothing is lost by finding out early.
            limit = min(limit, timeouts[Phase.RSET]) if limit else timeouts[Phase.RSET]
        self._limit(limit)

    def _go_on(self) -> None:
        if self._pieces is not None:
            self._send_pieces()

    # -- what the service asks -----------------------------------------------------------------------------------------

    @property
    def reusable(self) -> bool:
        """Whether another transaction may begin now."""
        return not self.closed and self._transaction is None and self.machine.reusable

    def run(self, transaction: Transaction) -> None:
        """Start a transaction on a session that is open and idle; ``transaction.on_over`` tells the end."""
        self.idle = False
        self.uses += 1
        machine = self.machine
        settings = self.settings
        transaction.prepare(
            self.peer,
            machine.features,
            self.uses,
            dummy_auth=settings.dummy_mail_auth and self.login is not None and self.login.done,
            assume_final=settings.assume_final,
        )
        trouble = unfit(transaction, self.peer, machine.features, self._content)
        if trouble is not None:
            transaction.fail_all(trouble)
            transaction.end()
            return
        self._transaction = transaction
        if settings.xforward and "xforward" in machine.features:
            offered = machine.features.keywords["xforward"]
            self._asks = xforward_commands(offered, transaction.delivery.request.envelope)
        self._next_command(transaction)
        self.transport.write(machine.bytes_to_send())
        self._watch()

    def _next_command(self, transaction: Transaction) -> None:
        if self._asks:
            self.machine.ask(Phase.XFORWARD, self._asks.pop(0))
        else:
            self.machine.begin(transaction.envelope, probe=transaction.probe)

    def rest(self, seconds: float) -> None:
        """Be idle for at most ``seconds``."""
        self.idle = True
        self._limit(seconds)

    def say_goodbye(self) -> None:
        """QUIT, and close when the server has answered (or at once: smtp_skip_quit_response)."""
        self.idle = False
        if self.closed:
            return
        machine = self.machine
        if machine.state is State.CLOSED or machine.state is State.QUITTING:
            self._end_of_quit()
            return
        try:
            machine.quit()
        except machine_events.LocalError:
            self._drop()
            return
        self.transport.write(machine.bytes_to_send())
        self._end_of_quit()

    def _end_of_quit(self) -> None:
        if self.settings.skip_quit_response or self.machine.state is State.CLOSED:
            self._drop(flush=True)
        else:
            self._watch()

    def abandon(self) -> None:
        """Close without a word."""
        self._drop()

    def _drop(self, *, flush: bool = False) -> None:
        if self.closed:
            return
        self.closed = True
        self.idle = False
        self._pieces = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.machine.state is not State.CLOSED:
            self.machine.close()
        if self.transport is not None:
            if flush:
                self.transport.close()
            else:
                self.transport.abort()
        self._on_closed(self)
        transaction = self._transaction
        if transaction is not None:
            self._transaction = None
            transaction.end()

    # -- events --------------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        machine = self.machine
        handlers = _HANDLERS
        while True:
            event = machine.next_event()
            if event is None:
                break
            handlers[type(event)](self, event)
        if self.closed:
            return
        data = machine.bytes_to_send()
        if data:
            self.transport.write(data)
        transaction = self._transaction
        if transaction is not None and machine.state is State.CLOSED:
            # The machine gave up without an event (a server that mixes everything up).
            self._lost(Phase.DATA, timed_out=False)
        elif self._pieces is None and (
            transaction is not None or not self.opened.done() or machine.state is State.QUITTING
        ):
            self._watch()

    def _opened(self, trouble: Trouble | None) -> None:
        if not self.opened.done():
            self.opened.set_result(trouble)
        if trouble is not None:
            self.say_goodbye()

    def _on_greeting(self, event: machine_events.Greeting) -> None:
        reply = event.reply
        if not reply.positive:
            self._opened(refused_trouble(self.peer, reply, soften=self.settings.skip_5xx_greeting))
            return
        self._own_name(reply, "greeted me")
        self.machine.hello(extended=event.extended or self.settings.always_send_ehlo)

    def _own_name(self, reply: SmtpReply, what: str) -> bool:
        words = to_text(reply.lines[0][4:]).split()
        if self.settings.lmtp or self.peer.port != _SMTP_PORT or not words:
            return False
        if words[0].lower() != self.settings.myhostname.lower():
            return False
        self._log.warning(f"host {self.peer.relay} {what} with my own hostname {self.settings.myhostname}")
        return True

    def _on_hello(self, event: machine_events.HelloDone) -> None:
        if self._own_name(event.reply, "replied to HELO/EHLO"):
            text = f"mail for {self.destination} loops back to myself"
            self._opened(Trouble("5.4.6", text, relay=self.peer.relay, loop=True))
            return
        if self._secured is None and not self._in_clear():
            return
        if self._handshake is not None:
            self._handshake.remember()
        self._ready()

    def _ready(self) -> None:
        if self.login is None:
            self._opened(None)
        else:
            self._login_step(self.login.start(self))

    def _login_step(self, step: Trouble | bool) -> None:
        if step is True:
            self._opened(None)
        elif step is not False:
            self._opened(step)

    def login_goes_on(self, step: Trouble | bool) -> None:
        """A step of the login took some time."""
        self._login_step(step)
        self._pump()

    def warn(self, text: str) -> None:
        """A warning about this session."""
        self._log.warning(text, self.number)

    def _on_hello_refused(self, event: machine_events.HelloRefused) -> None:
        self._opened(refused_trouble(self.peer, event.reply))

    def _on_sender(self, event: machine_events.SenderResult) -> None:
        transaction = self._transaction
        if transaction is None:
            return
        reply = event.reply
        if self.uses > 1 and not transaction.started and reply.code == 421:
            self._stale(transaction)
            return
        transaction.started = True
        if not reply.positive:
            transaction.sender_refused(reply)

    def _stale(self, transaction: Transaction) -> None:
        transaction.stale = True
        self._drop()

    def _on_recipient(self, event: machine_events.RecipientResult) -> None:
        transaction = self._transaction
        if transaction is None:
            return
        if self.uses > 1 and not transaction.answered and event.reply.code == 421:
            self._stale(transaction)  # the server has a new configuration, or ends: nothing is lost by asking anew
            return
        transaction.answered = True
        if not event.reply.positive:
            transaction.recipient_refused(event.index, event.reply)
        elif transaction.probe:
            transaction.message_done(event.reply, (event.index,))

    def _on_data_ready(self, event: machine_events.DataReady) -> None:
        transaction = self._transaction
        if transaction is None:
            return
        reader, place, dot_free = transaction.source(self._content)
        limit = self.settings.line_length_limit
        if place.content_length > WHOLE_BYTES:
            self._pieces = content_pieces(
                reader, place, dot_free=dot_free, line_limit=limit, converter=self._converter(transaction)
            )
            data = self.machine.bytes_to_send()
            if data:
                self.transport.write(data)
            self._send_pieces()
            return
        try:
            converter = self._converter(transaction)
            content = whole_content(reader, place, dot_free=dot_free, line_limit=limit, converter=converter)
        except OSError as error:
            self._unreadable(transaction, error)
            return
        transaction.content_sent = True
        self.machine.send_content(content, dot_free=True, quit_after=transaction.quit_after())

    def _converter(self, transaction: Transaction) -> SevenBit | None:
        """What makes 8-bit content fit for a server that has not said that it takes it."""
        if not transaction.envelope.eight_bit or not self.settings.mime_conversion or "8bitmime" in self.machine.features:
            return None
        return SevenBit()

    def _send_pieces(self) -> None:
        """Write until the transport has enough; the final dot follows the last piece."""
        transaction = self._transaction
        pieces = self._pieces
        if transaction is None or pieces is None:
            return
        self._limit(self.settings.timeouts[Phase.CONTENT])
        while not self._paused:
            try:
                piece = next(pieces, None)
            except OSError as error:
                self._unreadable(transaction, error)
                return
            if piece is None:
                self._pieces = None
                transaction.content_sent = True
                self.machine.end_content(quit_after=transaction.quit_after())
                self._pump()
                return
            self.transport.write(piece)

    def _unreadable(self, transaction: Transaction, error: OSError) -> None:
        """The spool has let us down; the transaction must not be completed."""
        text = f"queue file read error: {error.strerror or error}"
        self._log.warning(f"{transaction.delivery.request.envelope.queue_id}: {text}")
        transaction.delivery.all_deferred("4.3.0", text)
        self._drop()

    def _on_command(self, event: machine_events.CommandReply) -> None:
        if event.phase is Phase.STARTTLS:
            self._on_starttls(event.reply)
            return
        if event.phase is Phase.AUTH and self.login is not None:
            self._login_step(self.login.reply(self, event.reply))
            return
        transaction = self._transaction
        if transaction is None:
            return
        if not event.reply.positive:
            self._log.warning(said_text(self.peer.name, event.reply, event.phase), transaction.delivery.number)
        if not self.machine.must_close:
            self._next_command(transaction)
            return
        transaction.started = True
        transaction.fail_all(reply_trouble(self.peer, event.reply, event.phase))
        self._drop()

    def _on_data_refused(self, event: machine_events.DataRefused) -> None:
        if self._transaction is not None:
            self._transaction.data_refused(event.reply)

    def _on_message(self, event: machine_events.MessageDone) -> None:
        if self._transaction is not None:
            self._transaction.message_done(event.reply, event.indexes)

    def _on_over(self, event: machine_events.TransactionOver) -> None:
        transaction = self._transaction
        if transaction is not None:
            self._transaction = None
            if self.machine.state is State.QUITTING:
                self._end_of_quit()
            transaction.end()

    def _on_unsolicited(self, event: machine_events.Unsolicited) -> None:
        if self._transaction is None and self.opened.done():
            self.say_goodbye()

    def _on_lost(self, event: machine_events.ConnectionLost) -> None:
        self._lost(event.phase, timed_out=False)

    def _on_protocol_error(self, event: machine_events.ProtocolError) -> None:
        self._lost(event.phase, timed_out=False)

    def _lost(self, phase: Phase, *, timed_out: bool) -> None:
        trouble = lost_trouble(self.peer, phase, timed_out=timed_out)
        transaction = self._transaction
        if not self.opened.done():
            self.opened.set_result(trouble)
        elif transaction is not None:
            if self.uses > 1 and not transaction.started:
                transaction.stale = True
            else:
                transaction.fail_all(trouble)
        self._drop()

    def _nothing(self, event: Any) -> None:
        """An event that changes nothing here."""

    def _on_end(self, event: Any) -> None:
        self._drop(flush=True)


_HANDLERS: dict[type, Callable[[Session, Any], None]] = {
    machine_events.Greeting: Session._on_greeting,
    machine_events.HelloDone: Session._on_hello,
    machine_events.HelloRefused: Session._on_hello_refused,
    machine_events.CommandReply: Session._on_command,
    machine_events.SenderResult: Session._on_sender,
    machine_events.RecipientResult: Session._on_recipient,
    machine_events.DataReady: Session._on_data_ready,
    machine_events.DataRefused: Session._on_data_refused,
    machine_events.MessageDone: Session._on_message,
    machine_events.TransactionOver: Session._on_over,
    machine_events.ResetDone: Session._nothing,
    machine_events.QuitDone: Session._on_end,
    machine_events.Unsolicited: Session._on_unsolicited,
    machine_events.ConnectionLost: Session._on_lost,
    machine_events.Closed: Session._on_end,
    machine_events.ProtocolError: Session._on_protocol_error,
}
