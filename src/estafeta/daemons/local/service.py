"""local(8): takes requests, checks for loops, lets each recipient expand, forwards what goes elsewhere, reports."""

from __future__ import annotations

import os

from estafeta.daemons.local.attempt import RELAY, Attempt, State
from estafeta.daemons.local.external import External
from estafeta.daemons.local.mailbox import Mailbox
from estafeta.daemons.local.recipient import Expander, local_address
from estafeta.daemons.local.resubmit import Resubmit
from estafeta.daemons.local.settings import read_settings
from estafeta.delivery.agent import DeliveryAgent
from estafeta.delivery.mailbox import Source, delivered_to
from estafeta.delivery.maildir import MaildirWriter
from estafeta.delivery.report import Delivery
from estafeta.mail.text import to_text
from estafeta.spool.content import ContentReader


class Local(DeliveryAgent):
    """local(8)."""

    runs_as_root = True
    may_jail = False

    def prepare(self) -> None:
        options = self.table_options()
        self.settings = read_settings(self.config, options)

    async def start(self) -> None:
        context = self.context
        settings = self.settings
        loop = context.loop
        self.reader = ContentReader(context.queue_directory)
        self.maildirs = MaildirWriter(os.uname().nodename, loop.call_soon, loop.call_soon_threadsafe)
        external = External(settings, self.maildirs, self.log.warning)
        self.resubmit = Resubmit(
            context, "forward" in settings.prepend, settings.myhostname, self.config.get("mail_name"),
            long_queue_ids=self.config.bool("enable_long_queue_ids"),
        )  # fmt: skip
        mailbox = Mailbox(settings, external, self.resubmit)
        self.expander = Expander(settings, external, mailbox, context.channel("rewrite"), self.log.warning)
        self.serve(soft_bounce=settings.soft_bounce)

    async def stop(self) -> None:
        self.maildirs.close()
        self.reader.close()

    async def deliver(self, delivery: Delivery) -> None:
        """All recipients of one request."""
        request = delivery.request
        source = Source(self.reader, request.place)
        try:
            seen = delivered_to(source.header_block())
        except OSError as error:
            self.log.warning(f"{request.envelope.queue_id}: read queue file: {error}")
            delivery.all_deferred("4.3.0", "queue file read error", RELAY)
            return
        for index in delivery.undecided:
            await self._one(Attempt(delivery, index, source, seen, delivery.recipient(index).address))
        self.reader.release(request.place)

    async def _one(self, attempt: Attempt) -> None:
        whole = attempt.recipient.address
        if whole.lower() in attempt.seen:
            attempt.delivery.bounced(attempt.index, "5.4.6", f"mail forwarding loop for {to_text(whole)}", RELAY)
            return
        state = State(local_address(whole, self.settings), attempt.delivery.request.envelope.sender)
        await self.expander.recipient(attempt, state)
        if attempt.forwards:
            await self.resubmit.forward_all(attempt, state)
        attempt.settle()
