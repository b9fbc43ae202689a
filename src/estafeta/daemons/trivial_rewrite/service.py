"""The service around the resolver: one request, one answer, in any order."""

from __future__ import annotations

from estafeta.config.rewrite_rules import rewrite_rules
from estafeta.daemons.trivial_rewrite.resolve import Resolver
from estafeta.ipc.channel import Connection
from estafeta.ipc.messages import Message, Refused, Resolve, Rewrite, Rewritten
from estafeta.mail.rewrite import to_standard_form
from estafeta.service.daemon import Daemon
from estafeta.service.own_addresses import own_addresses


class TrivialRewrite(Daemon):
    """trivial-rewrite(8)."""

    max_workers = 1

    def prepare(self) -> None:
        config = self.config
        options = self.table_options()
        own = own_addresses(config)
        self._resolver = Resolver(config, options, own_addresses=own)
        self._verifier = Resolver(config, options, own_addresses=own, verify=True)
        self._rules = rewrite_rules(config)

    def on_message(self, connection: Connection, number: int, message: Message) -> None:
        if isinstance(message, Resolve):
            resolver = self._verifier if message.verify else self._resolver
            self.answer(connection, number, resolver.resolve(message.address, message.sender))
        elif isinstance(message, Rewrite):
            address = to_standard_form(self._rules, message.address, remote=message.context == "remote")
            connection.reply(number, Rewritten(address))
        else:
            connection.reply(number, Refused("trivial-rewrite: unknown request"))
