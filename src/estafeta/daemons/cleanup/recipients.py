"""The envelope: standard form, canonical mapping, masquerading, bcc, virtual aliases, duplicates.

Source: cleanup(8), ADDRESS_REWRITING_README, canonical(5), virtual(5).
Every function raises LookupFailed if a table cannot be asked: the message is then refused for now.
"""

from __future__ import annotations

from estafeta.daemons.cleanup.settings import Settings
from estafeta.ipc.messages import Recipient
from estafeta.mail.address import split_address
from estafeta.mail.rewrite import to_standard_form
from estafeta.mail.text import to_bytes, to_text
from estafeta.tables.maps import Maps

_CANONICAL_STEPS = 100  # a result is looked up again until it stays


class ExpansionTooLarge(Exception):
    """A virtual alias grows beyond the limits; the text is the log line."""


class Mapping:
    """Address mapping with the tables of one worker."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def is_local_domain(self, domain: str) -> bool:
        """Domains whose addresses canonical(5) and virtual(5) also look up without domain."""
        settings = self._settings
        if to_bytes(domain).lower() == settings.rules.myorigin.lower():
            return True
        if domain.startswith("["):
            return domain[1:-1].lower() in settings.own_addresses
        return await settings.destinations.match(domain)

    async def canonical(self, address: bytes, tables: list[tuple[Maps, bool]]) -> bytes:
        """``address`` mapped by each (table, is it for this class) in order, until it stays (or comes again)."""
        settings = self._settings
        if not address:
            return address
        propagate = "canonical" in settings.propagate
        for maps, applies in tables:
            if not maps or not applies:
                continue
            seen = {address.lower()}
            while True:
                results = await maps.map_address(
                    to_text(address),
                    propagate=propagate,
                    extension_delimiter=settings.delimiter,
                    is_local=self.is_local_domain,
                )
                if not results:
                    break
                address = to_standard_form(settings.rules, to_bytes(results[0]))
                if address.lower() in seen or len(seen) >= _CANONICAL_STEPS:
                    break
                seen.add(address.lower())
        return address

    async def sender(self, address: bytes) -> bytes:
        """The envelope sender."""
        settings = self._settings
        address = to_standard_form(settings.rules, address)
        if settings.maps_headers:
            address = await self.canonical(
                address,
                [
                    (settings.sender_canonical, "envelope_sender" in settings.sender_canonical_classes),
                    (settings.canonical, "envelope_sender" in settings.canonical_classes),
                ],
            )
            address = await self.masquerade(address, "envelope_sender")
        return address

    async def recipient(self, address: bytes) -> bytes:
        """An envelope recipient, before virtual aliases."""
        settings = self._settings
        address = to_standard_form(settings.rules, address)
        if settings.maps_headers:
            address = await self.canonical(
                address,
                [
                    (settings.recipient_canonical, "envelope_recipient" in settings.recipient_canonical_classes),
                    (settings.canonical, "envelope_recipient" in settings.canonical_classes),
                ],
            )
            address = await self.masquerade(address, "envelope_recipient")
        return address

    async def masquerade(self, address: bytes, kind: str) -> bytes:
        """Strip subdomains (postconf(5) masquerade_domains)."""
        settings = self._settings
        if not settings.masquerade_domains or kind not in settings.masquerade_classes:
            return address
        local, domain = split_address(address)
        if not domain or await settings.masquerade_exceptions.match(to_text(local)):
            return address
        lower = domain.lower()
        for entry in settings.masquerade_domains:
            negated = entry.startswith(b"!")
            name = entry.lstrip(b"!")
            if lower == name or lower.endswith(b"." + name):
                return address if negated or lower == name else local + b"@" + domain[-len(name) :]
        return address

    async def copies(self, sender: bytes, recipients: list[Recipient]) -> list[Recipient]:
        """Recipients that always_bcc and the bcc maps add."""
        settings = self._settings
        found: list[Recipient] = []
        if settings.always_bcc:
            found.append(Recipient(to_standard_form(settings.rules, settings.always_bcc), b"", 1))
        if settings.sender_bcc and sender:
            found.extend(await self._bcc(settings.sender_bcc, sender))
        if settings.recipient_bcc:
            for recipient in recipients:
                found.extend(await self._bcc(settings.recipient_bcc, recipient.address))
        return found

    async def _bcc(self, maps: Maps, address: bytes) -> list[Recipient]:
        settings = self._settings
        results = await maps.map_address(
            to_text(address),
            propagate=False,
            extension_delimiter=settings.delimiter,
            is_local=self.is_local_domain,
        )
        return [Recipient(to_standard_form(settings.rules, to_bytes(result)), b"", 1) for result in (results or [])[:1]]

    async def expand(self, recipient: Recipient) -> list[Recipient]:
        """virtual(5): a recipient's final addresses; raises ExpansionTooLarge."""
        settings = self._settings
        maps = settings.virtual_alias
        if not maps:
            return [recipient]
        propagate = "virtual" in settings.propagate
        seen = {recipient.address.lower()}
        todo: list[tuple[bytes, int, frozenset[bytes]]] = [(recipient.address, 0, frozenset())]
        final: list[bytes] = []
        while todo:
            address, depth, above = todo.pop(0)
            key = address.lower()
            if key in above:
                raise ExpansionTooLarge(f"unreasonable virtual_alias_maps map nesting for {to_text(recipient.address)}")
            results = await maps.map_address(
                to_text(address),
                propagate=propagate,
                extension_delimiter=settings.delimiter,
                is_local=self.is_local_domain,
            )
            if not results:
                final.append(address)
                continue
            if depth >= settings.virtual_alias_recursion_limit:
                raise ExpansionTooLarge(
                    f"unreasonable virtual_alias_maps map nesting for {to_text(recipient.address)}"
                )
            for result in results:
                target = to_standard_form(settings.rules, to_bytes(result))
                if len(target) > settings.virtual_alias_address_length_limit:
                    raise ExpansionTooLarge(
                        f"unreasonable virtual_alias_maps result {to_text(target[:100])}... -- message not accepted"
                    )
                if target.lower() == key:
                    final.append(target)
                elif target.lower() in seen and target.lower() not in (above | {key}):
                    continue
                else:
                    seen.add(target.lower())
                    todo.append((target, depth + 1, above | {key}))
            if len(final) + len(todo) > settings.virtual_alias_expansion_limit:
                raise ExpansionTooLarge(
                    f"unreasonable virtual_alias_maps map expansion size for {to_text(recipient.address)}"
                )
        if final == [recipient.address]:
            return [recipient]
        original = recipient.original or recipient.address
        return [Recipient(address, original, recipient.notify, recipient.orcpt) for address in dict.fromkeys(final)]

    def without_duplicates(self, recipients: list[Recipient]) -> list[Recipient]:
        """Each final address once (for each original recipient that it had, while those are kept)."""
        settings = self._settings
        seen: set[tuple[bytes, bytes, int]] = set()
        kept: list[Recipient] = []
        for recipient in recipients:
            original = recipient.original.lower() if settings.enable_original_recipient else b""
            key = (recipient.address.lower(), original, recipient.notify)
            if key in seen and len(seen) < settings.duplicate_limit:
                continue
            seen.add(key)
            kept.append(recipient)
        return kept
