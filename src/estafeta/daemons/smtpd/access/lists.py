"""Restriction lists: made into functions once, walked in order.

Source: postconf(5) smtpd_*_restrictions, smtpd_restriction_classes, SMTPD_ACCESS_README, RESTRICTION_CLASS_README. A list
that names a restriction that Estafeta does not know is refused at start; one that is known but not there yet answers 451 4.3.5.
Invariant: a look-up that fails gives a temporary refusal, never a permission and never a permanent refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from estafeta.clients.rewrite import RewriteClient
from estafeta.clients.verify import VerifyClient
from estafeta.config.config import Config
from estafeta.config.errors import ConfigError
from estafeta.config.restrictions import PLANNED, STAGES, WITH_ARGUMENT
from estafeta.config.values import split_words
from estafeta.daemons.smtpd.access.actions import TableActions
from estafeta.daemons.smtpd.access.blocklist import Blocklists
from estafeta.daemons.smtpd.access.delegated import Delegated
from estafeta.daemons.smtpd.access.domains import Domains
from estafeta.daemons.smtpd.access.generic import Generic, Maker
from estafeta.daemons.smtpd.access.names import Names
from estafeta.daemons.smtpd.access.owners import Owners
from estafeta.daemons.smtpd.access.relaying import Relaying
from estafeta.daemons.smtpd.access.servers import ServerChecks
from estafeta.daemons.smtpd.access.table import TableChecks
from estafeta.daemons.smtpd.access.tools import Tools
from estafeta.daemons.smtpd.access.verdict import CONFIGURATION_ERROR, PERMIT, Check, Facts, Result, Scene, Verdict, scene_for
from estafeta.daemons.smtpd.access.verified import Verified
from estafeta.dns.resolver import Resolver
from estafeta.ipc.channel import ServiceLost
from estafeta.tables.table import LookupFailed, OpenOptions

OLD_NAMES = {
    "reject_unknown_address": "reject_unknown_sender_domain",
    "reject_unknown_client": "reject_unknown_client_hostname",
    "reject_unknown_hostname": "reject_unknown_helo_hostname",
    "reject_invalid_hostname": "reject_invalid_helo_hostname",
    "reject_non_fqdn_hostname": "reject_non_fqdn_helo_hostname",
}
_MAX_DEPTH = 100


@dataclass(frozen=True, slots=True)
class _Entry:
    """One restriction of a list. ``check`` is None for one that is planned."""

    name: str
    check: Check | None
    warn_only: bool


def _ignore(what: str, text: str) -> None:
    """A log that nobody reads."""


class Access:
    """All restriction lists of one smtpd service."""

    def __init__(
        self,
        config: Config,
        options: OpenOptions,
        rewrite: RewriteClient,
        warn: Callable[[str], None],
        resolver: Resolver | None = None,
        verify: VerifyClient | None = None,
    ) -> None:
        self._warn = warn
        self._tools = tools = Tools(config, options, rewrite, warn, resolver, self._run_words)
        self._generic = Generic(tools)
        self._relaying = Relaying(tools)
        actions = TableActions(tools)
        tables = TableChecks(tools, actions)
        self._blocklists = Blocklists(tools)
        self._delegated = Delegated(tools, actions)
        self._checks: dict[str, Check] = {
            **self._generic.checks,
            **Names(tools).checks,
            **self._relaying.checks,
            **Owners(tools).checks,
            **Domains(tools).checks,
            **Verified(tools, verify).checks,
        }
        self._makers: dict[str, Maker] = {
            **tables.makers,
            **ServerChecks(tools, tables).makers,
            **self._blocklists.makers,
            **self._delegated.makers,
        }
        self._unlisted_sender = _Entry("reject_unlisted_sender", self._checks["reject_unlisted_sender"], False)
        self._class_names = set(config.words("smtpd_restriction_classes"))
        self._named: dict[str, list[_Entry]] = {}
        self._from_tables: dict[tuple[str, str], list[_Entry]] = {}
        for name in sorted(self._class_names):
            self._named[name] = self._parse(name, config.words(name) if config.is_set(name) else [], "recipient")
        self._lists = {
            stage: self._parse(f"smtpd_{stage}_restrictions", config.words(f"smtpd_{stage}_restrictions"), stage)
            for stage in STAGES
        }
        every = [*self._lists.values(), *self._named.values()]
        self.planned = sorted({entry.name for entries in every for entry in entries if entry.check is None})
        self._rejects_unlisted_sender = config.bool("smtpd_reject_unlisted_sender")
        self.unlisted = self._relaying.unlisted
        self.refuse_unlisted = self._relaying.refuse_unlisted

    @property
    def asks_policy_servers(self) -> bool:
        """True if facts that only policy servers want are wanted."""
        return self._delegated.is_used

    def close(self) -> None:
        """End what is kept open to policy servers."""
        self._delegated.close()

    # -- parsing --------------------------------------------------------------------------------------------------------------

    def _parse(self, parameter: str, words: list[str], stage: str) -> list[_Entry]:
        """The restrictions in order; raises ConfigError for an unknown name."""
        entries: list[_Entry] = []
        position = 0
        warn_only = False
        while position < len(words):
            name = words[position]
            position += 1
            if name.lower() == "warn_if_reject":
                warn_only = True
                continue
            lower = OLD_NAMES.get(name.lower(), name.lower())  # the start-up check has given the modern form (config/legacy)
            argument = ""
            if lower == "sleep" or (lower.startswith(WITH_ARGUMENT) and lower != "check_relay_domains"):
                if position >= len(words):
                    raise ConfigError(f"{parameter}: {name}: no argument")
                argument = words[position]
                position += 1
            for entry_name, check in self._made(parameter, name, lower, argument, stage):
                entries.append(_Entry(entry_name, check, warn_only))
            warn_only = False
        return entries

    def _made(
        self, parameter: str, name: str, lower: str, argument: str, stage: str
    ) -> list[tuple[str, Check | None]]:
        if name in self._class_names:
            return [(name, self._class(name))]
        maker = self._makers.get(lower)
        if maker is not None:
            return [(lower, maker(argument))]
        check = self._checks.get(lower)
        if check is not None:
            return [(lower, check)]
        if lower == "sleep":
            try:
                return [(lower, Generic.sleep(argument))]
            except ValueError:
                raise ConfigError(f"{parameter}: sleep: bad number: {argument}") from None
        if lower == "reject_maps_rbl":
            return [(lower, made) for made in self._blocklists.old()]
        if lower in PLANNED:
            return [(lower, None)]
        if ":" in name:  # a table by itself: looked up as the list's own subject
            kind = stage if stage in ("client", "helo", "sender", "etrn") else "recipient"
            return [(name, self._makers[f"check_{kind}_access"](name))]
        raise ConfigError(f'{parameter}: unknown smtpd restriction: "{name}"')

    def _class(self, name: str) -> Check:
        async def check(scene: Scene) -> Result:
            return await self._deeper(self._named[name], scene, name)

        return check

    # -- walking --------------------------------------------------------------------------------------------------------------

    def has(self, stage: str) -> bool:
        """True if there is anything to check at ``stage``."""
        return bool(self._lists[stage]) or (stage == "sender" and self._rejects_unlisted_sender)

    async def check(
        self,
        stage: str,
        facts: Facts,
        warned: Callable[[Verdict], None],
        command: str = "RCPT",
        note: Callable[[str, str], None] = _ignore,
    ) -> Verdict | None:
        """Walk one list: a refusal, or None. ``warned`` gets what warn_if_reject would have refused, ``note`` what access tables
        want logged.
        """
        if stage == "helo" and not facts.helo:
            return None
        scene = scene_for(stage, facts, command, warned, note)
        result = await self._walk(self._lists[stage], scene)
        if stage == "sender" and self._rejects_unlisted_sender and not isinstance(result, Verdict) and not facts.is_discarded:
            result = await self._evaluate(self._unlisted_sender, scene)
        if not isinstance(result, Verdict):
            return None
        if facts.defer_if_reject is not None and result.code >= 500:
            return facts.defer_if_reject
        return result

    async def _walk(self, entries: list[_Entry], scene: Scene) -> Result:
        for entry in entries:
            before = scene.soft
            scene.soft = before or entry.warn_only
            try:
                result = await self._evaluate(entry, scene)
            finally:
                scene.soft = before
            if result is None:
                continue
            if isinstance(result, Verdict) and entry.warn_only:
                scene.warned(result)
                continue
            return result
        return None

    async def _evaluate(self, entry: _Entry, scene: Scene) -> Result:
        try:
            if entry.check is None:
                self._warn(f"restriction {entry.name} is not implemented")
                return CONFIGURATION_ERROR
            return await entry.check(scene)
        except (LookupFailed, ServiceLost) as error:
            self._warn(f"{entry.name}: {error}")
            return Verdict(451, "4.3.0", f"<{scene.name}>: Temporary lookup failure")

    async def _deeper(self, entries: list[_Entry], scene: Scene, name: str) -> Result:
        if scene.depth >= _MAX_DEPTH:
            self._warn(f"restriction lists nested too deeply at {name}")
            return CONFIGURATION_ERROR
        scene.depth += 1
        try:
            return await self._walk(entries, scene)
        finally:
            scene.depth -= 1

    async def _run_words(self, text: str, scene: Scene) -> Result:
        """Restrictions that an access table or a policy server named."""
        key = text, scene.stage
        entries = self._from_tables.get(key)
        if entries is None:
            try:
                entries = self._parse("access table", split_words(text), scene.stage)
            except ConfigError as error:
                self._warn(error.reason.partition(": ")[2] or error.reason)
                return CONFIGURATION_ERROR
            if len(self._from_tables) < 1000:  # regular expressions can make any number of texts
                self._from_tables[key] = entries
        return await self._deeper(entries, scene, text)

    async def is_in_mynetworks(self, address: str) -> bool:
        """True for clients that permit_mynetworks lets pass; raises LookupFailed."""
        return await self._generic.mynetworks.match(address)


__all__ = ["PERMIT", "Access"]
