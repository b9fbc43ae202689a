"""check_*_access: which keys are asked for, in which order.

Source: access(5) EMAIL ADDRESS PATTERNS, EMAIL ADDRESS EXTENSION, HOST NAME/ADDRESS PATTERNS; postconf(5) check_client_access and
the others. The first key that is found decides, also with DUNNO; pattern tables see whole keys only.
Invariant: a table that cannot be asked is 451 4.3.5, whatever the key.
"""

from __future__ import annotations

from estafeta.daemons.smtpd.access.actions import TableActions
from estafeta.daemons.smtpd.access.generic import Maker
from estafeta.daemons.smtpd.access.tools import Tools
from estafeta.daemons.smtpd.access.verdict import CONFIGURATION_ERROR, PERMIT, Check, Result, Scene, domain_of, shown
from estafeta.mail.address import split_address, split_extension
from estafeta.mail.text import to_bytes, to_text
from estafeta.tables.maps import Maps
from estafeta.tables.table import LookupFailed


class _Nothing:
    """No key was found (a result of None means DUNNO: found, and no opinion)."""


NOTHING = _Nothing()
Found = Result | _Nothing


class TableChecks:
    """See the module."""

    def __init__(self, tools: Tools, actions: TableActions) -> None:
        self._tools = tools
        self.actions = actions
        config = tools.config
        self._parents = "smtpd_access_maps" in config.words("parent_domain_matches_subdomains")
        self._null_key = config.get("smtpd_null_access_lookup_key")
        self._delimiter = to_bytes(config.get("recipient_delimiter"))
        self.makers: dict[str, Maker] = {
            "check_client_access": self._client,
            "check_reverse_client_hostname_access": self._reverse_client,
            "check_helo_access": self._helo,
            "check_sender_access": self._sender,
            "check_recipient_access": self._recipient,
            "check_etrn_access": self._etrn,
            "check_sasl_access": self._sasl,
            "check_ccert_access": self._ccert,
        }

    # -- keys -----------------------------------------------------------------------------------------------------------------

    async def key(self, scene: Scene, maps: Maps, key: str, *, partial: bool = False) -> Found:
        """Ask for one key and do what it says."""
        source = maps.tables[0].name if maps.tables else ""
        try:
            text = await maps.find(key, partial)
        except LookupFailed as error:
            self._tools.warn(f'{error.table} lookup error for "{key}"')
            return scene.refuse(451, "4.3.5", "Server configuration error")
        if text is None:
            return NOTHING
        return await self.actions.run(scene, source, text)

    async def domain(self, scene: Scene, maps: Maps, name: str, *, partial: bool = False) -> Found:
        """A name and its parents: ``a.b.c``, then ``b.c`` (or ``.b.c``) ..."""
        found = await self.key(scene, maps, name, partial=partial)
        dot = name.find(".", 1)
        while found is NOTHING and dot >= 0:
            found = await self.key(scene, maps, name[dot + self._parents :], partial=True)
            dot = name.find(".", dot + 1)
        return found

    async def address(self, scene: Scene, maps: Maps, address: str) -> Found:
        """An IP address and the networks that are written as its beginning."""
        found = await self.key(scene, maps, address)
        mark = ":" if ":" in address else "."
        end = address.rfind(mark)
        while found is NOTHING and end > 0:
            address = address[:end]
            found = await self.key(scene, maps, address, partial=True)
            end = address.rfind(mark)
        return found

    async def mailbox(self, scene: Scene, maps: Maps, address: bytes) -> Found:
        """user+ext@domain, user@domain, domain and its parents, user+ext@, user@."""
        route = await self._tools.resolve(address, scene.facts.sender or b"" if scene.kind == "Recipient address" else b"")
        whole = route.recipient
        local, domain = split_address(whole)
        found = await self.key(scene, maps, to_text(whole))
        if found is not NOTHING:
            return found
        user, extension = split_extension(local, self._delimiter)
        if extension is not None and domain is not None:
            found = await self.key(scene, maps, to_text(user + b"@" + domain), partial=True)
        if found is NOTHING and domain:
            found = await self.domain(scene, maps, to_text(domain), partial=True)
        if found is NOTHING:
            found = await self.key(scene, maps, to_text(local) + "@", partial=True)
        if found is NOTHING and extension is not None:
            found = await self.key(scene, maps, to_text(user) + "@", partial=True)
        return found

    # -- restrictions ---------------------------------------------------------------------------------------------------------

    def _client(self, spec: str) -> Check:
        maps = self._tools.maps(spec)

        async def check(scene: Scene) -> Result:
            facts = scene.facts
            about = scene.about(f"{facts.client_name}[{facts.client_address}]", "Client host")
            found = await self.domain(about, maps, facts.client_name)
            if found is NOTHING:
                found = await self.address(about, maps, facts.client_address)
            return known(found)

        return check

    def _reverse_client(self, spec: str) -> Check:
        maps = self._tools.maps(spec)

        async def check(scene: Scene) -> Result:
            facts = scene.facts
            about = scene.about(facts.reverse_name, "Unverified Client host")
            found = await self.domain(about, maps, facts.reverse_name)
            if found is NOTHING:
                found = await self.address(about, maps, facts.client_address)
            return self.never_ok("check_reverse_client_hostname_access", facts.reverse_name, known(found))

        return check

    def never_ok(self, restriction: str, name: str, result: Result) -> Result:
        """A name that nobody has confirmed must not open the door."""
        if result == PERMIT:
            self._tools.warn(f"restriction {restriction} returns OK for {name}")
            self._tools.warn("this is not allowed for security reasons")
            self._tools.warn("use DUNNO instead of OK if you want to make an exception")
            return CONFIGURATION_ERROR
        return result

    def _helo(self, spec: str) -> Check:
        maps = self._tools.maps(spec)

        async def check(scene: Scene) -> Result:
            helo = scene.facts.helo
            if not helo:
                return None
            return known(await self.domain(scene.about(helo, "Helo command"), maps, helo))

        return check

    def _mail(self, spec: str, kind: str) -> Check:
        maps = self._tools.maps(spec)
        is_sender = kind == "Sender address"

        async def check(scene: Scene) -> Result:
            address = scene.facts.sender if is_sender else scene.facts.recipient
            if address is None:
                return None
            about = scene.about(shown(address), kind)
            if not address:
                return known(await self.key(about, maps, self._null_key))
            return known(await self.mailbox(about, maps, address))

        return check

    def _sender(self, spec: str) -> Check:
        return self._mail(spec, "Sender address")

    def _recipient(self, spec: str) -> Check:
        return self._mail(spec, "Recipient address")

    def _etrn(self, spec: str) -> Check:
        maps = self._tools.maps(spec)

        async def check(scene: Scene) -> Result:
            domain = scene.facts.etrn_domain
            if not domain:
                return None
            return known(await self.domain(scene.about(domain, "Etrn command"), maps, domain))

        return check

    def _sasl(self, spec: str) -> Check:
        maps = self._tools.maps(spec)

        async def check(scene: Scene) -> Result:
            user = scene.facts.sasl_username
            return known(await self.key(scene.about(user, "SASL login name"), maps, user)) if user else None

        return check

    def _ccert(self, spec: str) -> Check:
        spec, order = _ccert_argument(spec)
        maps = self._tools.maps(spec)

        async def check(scene: Scene) -> Result:
            facts = scene.facts
            values = {"cert_fingerprint": facts.ccert_fingerprint, "pubkey_fingerprint": facts.ccert_pubkey_fingerprint,
                      "certificate": facts.ccert_fingerprint, "subject_cn": facts.ccert_subject}  # fmt: skip
            for name in order:
                value = values.get(name, "")
                if value:
                    found = await self.key(scene.about(value, "Client certificate"), maps, value)
                    if found is not NOTHING:
                        return known(found)
            return None

        return check


def known(found: Found) -> Result:
    """What was found; nothing is no opinion."""
    return None if isinstance(found, _Nothing) else found


def _ccert_argument(argument: str) -> tuple[str, list[str]]:
    """``type:table`` or ``{ type:table, { search_order = a, b } }``."""
    default = ["cert_fingerprint", "pubkey_fingerprint"]
    if not argument.startswith("{"):
        return argument, default
    inner = argument[1:-1].replace(",", " ").strip()
    spec, _, rest = inner.partition(" ")
    _, equals, order = rest.replace("{", " ").replace("}", " ").partition("=")
    return spec, order.split() if equals else default


__all__ = ["NOTHING", "Found", "TableChecks", "domain_of", "known"]
