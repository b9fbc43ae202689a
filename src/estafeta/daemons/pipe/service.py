"""Requests become commands, their ends become results.

Source: pipe(8), postconf(5) transport_time_limit. Invariants: a command runs as the user of its master.cf line, never as root
nor as the owner of the mail system; what cannot be run now is deferred; a command that ends badly says in the report why.
Where the D or O flag wants one recipient at a time, the command runs once for each.
"""

from __future__ import annotations

import os

from estafeta.config.errors import ConfigError
from estafeta.config.export_environment import exported_environment
from estafeta.config.pipe_attributes import BadAttributes, parse_pipe_attributes
from estafeta.daemons.pipe.arguments import command_line
from estafeta.daemons.pipe.message import message
from estafeta.delivery.agent import DeliveryAgent
from estafeta.delivery.command import Command, judge, run_command
from estafeta.delivery.mailbox import Source, delivered_to
from estafeta.delivery.report import Delivery
from estafeta.spool.content import ContentReader
from estafeta.system import privilege


class Pipe(DeliveryAgent):
    """pipe(8)."""

    runs_as_root = True
    may_jail = False

    def prepare(self) -> None:
        config, service = self.config, self.context.service
        where = config.path.replace("main.cf", "master.cf")
        try:
            self.attributes = parse_pipe_attributes(service.args)
        except BadAttributes as error:
            raise ConfigError(f"service {service.name}: {error}", where, service.line) from None
        self.uid, self.gid = self._rights(where)
        self._environment = exported_environment(config)
        self._delimiters = config.get("recipient_delimiter")
        limit = f"{service.name}_time_limit"
        self._time_limit_s = config.seconds(limit) if config.is_set(limit) else config.seconds("command_time_limit")
        self._soft_bounce = config.bool("soft_bounce")

    def _rights(self, where: str) -> tuple[int, int]:
        """The numbers that the command runs with; raises ConfigError."""
        attributes, service = self.attributes, self.context.service

        def wrong(text: str) -> ConfigError:
            return ConfigError(f"service {service.name}: user={attributes.user}: {text}", where, service.line)

        user = privilege.find_user(attributes.user)
        if user is None:
            raise wrong("unknown username: create the account, or name another one")
        gid = user.gid
        if attributes.group:
            found = privilege.find_group(attributes.group)
            if found is None:
                raise wrong(f"unknown group {attributes.group}")
            gid = found
        if not privilege.is_root():
            if user.uid != os.geteuid():
                raise wrong("only root can run commands as another user")
            return user.uid, gid
        if user.uid == 0 or gid == 0:
            raise wrong("request to deliver mail with root privileges")
        owner = privilege.find_user(self.config.get("mail_owner"))
        if owner is not None and owner.uid == user.uid:
            raise wrong("request to deliver mail as the mail system owner")
        return user.uid, gid

    async def start(self) -> None:
        self.reader = ContentReader(self.context.queue_directory)
        self.serve(soft_bounce=self._soft_bounce)

    async def stop(self) -> None:
        self.reader.close()

    async def deliver(self, delivery: Delivery) -> None:
        """All recipients of one request, by one command or by one each."""
        attributes, envelope = self.attributes, delivery.request.envelope
        name = self.context.service.name
        source = Source(self.reader, delivery.request.place)
        size = envelope.size
        if attributes.size_limit and size > attributes.size_limit:
            delivery.all_bounced("5.2.3", "message too large", name)
            return
        if "D" in attributes.flags:
            seen = delivered_to(source.header_block())
            for index in delivery.undecided:
                address = delivery.recipient(index).address
                if address.lower() in seen:
                    text = f"mail forwarding loop for {address.decode('utf-8', 'surrogateescape')}"
                    delivery.bounced(index, "5.4.6", text, name)
        waiting = delivery.undecided
        if attributes.flags & {"D", "O"}:
            for index in waiting:
                await self._run(delivery, [index], source)
        elif waiting:
            await self._run(delivery, waiting, source)
        self.reader.release(delivery.request.place)

    async def _run(self, delivery: Delivery, indices: list[int], source: Source) -> None:
        attributes, request = self.attributes, delivery.request
        envelope = request.envelope
        name = self.context.service.name
        recipients = [delivery.recipient(index) for index in indices]
        argv = command_line(attributes, envelope, recipients, request.nexthop, self._delimiters)
        action = "delivered" if "X" in attributes.flags else "relayed"
        if request.trace:
            for index in indices:
                delivery.sent(index, f"delivers to command: {argv[0]}", name, action=action)
            return
        command = Command(
            " ".join(argv), self.uid, self.gid, self._environment, attributes.directory or None, self._time_limit_s, argv,
            program="pipe", stage="pipe_command: ", jail=attributes.chroot,
        )  # fmt: skip
        try:
            end = await run_command(command, message(attributes, envelope, recipients[0], source))
        except OSError as error:
            self.log.warning(f"{envelope.queue_id}: command {argv[0]}: {error}")
            place = error.filename or argv[0]
            for index in indices:
                delivery.deferred(index, "4.3.0", f"cannot run command: {place}: {error.strerror}", name)
            return
        found = judge(end, argv[0])
        dsn, text = found.dsn, found.text
        if end.status == 0 and not end.timed_out:
            output = "".join(c if c.isprintable() else " " for c in end.output.decode("utf-8", "replace"))
            output = output.strip()
            text = f"delivered via {name} service" + (f" ({output})" if output else "")
        for index in indices:
            if dsn.startswith("2"):
                delivery.sent(index, text, name, action=action)
            elif dsn.startswith("4"):
                delivery.deferred(index, dsn, text, name)
            else:
                diagnostic = f"x-unix; {found.diagnostic}" if found.diagnostic else ""
                delivery.bounced(index, dsn, text, name, diagnostic=diagnostic)

