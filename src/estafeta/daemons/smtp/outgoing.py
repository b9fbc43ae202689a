"""Mail that is changed while it is delivered: smtp_generic_maps (envelope and headers), smtp_header_checks and its kin.

Source: generic(5); header_checks(5) FILTERS WHILE DELIVERING MAIL; what Postfix 3.7 does: the checks come first, and what a
rule has put in is not mapped; only the message's own headers are mapped, not those of attached messages. The queue keeps what
it had: reports and logs speak of the old addresses. Made once for a delivery, before the first server is asked; a large
message goes through an unnamed file. Invariant: a table that cannot be asked gives LookupFailed, never unchanged mail.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from estafeta.config.config import Config
from estafeta.config.rewrite_rules import rewrite_rules
from estafeta.daemons.smtp.content import PIECE_BYTES, WHOLE_BYTES
from estafeta.daemons.smtp.names import parameter_name
from estafeta.ipc.messages import ContentFlag, DeliverRequest, Place
from estafeta.mail.address import addresses_in, rewrite_addresses
from estafeta.mail.header import ADDRESS_HEADERS, Header, split_headers
from estafeta.mail.rewrite import to_standard_form
from estafeta.mail.text import to_bytes, to_text
from estafeta.service.content_checks import DeliveryInspection, Report
from estafeta.service.content_tables import read_delivery_checks
from estafeta.service.own_addresses import own_addresses
from estafeta.spool.content import ContentReader
from estafeta.system.unnamed_file import unnamed_file
from estafeta.tables.maps import Maps, parse_map_list
from estafeta.tables.match_list import DomainList
from estafeta.tables.table import OpenOptions


class Unacceptable(Exception):
    """The message cannot be sent as the rules want it: an enhanced status code and the reason."""

    def __init__(self, dsn: str, text: str) -> None:
        super().__init__(text)
        self.dsn = dsn


class _Written:
    """Changed content, in memory or in a file without a name; reads as ContentReader does."""

    def __init__(self, data: bytes, file: BinaryIO | None) -> None:
        self._data = data
        self._file = file

    def read(self, place: Place, start: int = 0, length: int | None = None) -> bytes:
        size = place.content_length - start if length is None else min(length, place.content_length - start)
        if self._file is None:
            return self._data[start : start + max(size, 0)]
        data = b""
        while len(data) < size:
            more = os.pread(self._file.fileno(), size - len(data), start + len(data))
            if not more:
                raise OSError("the changed message is shorter than it was")
            data += more
        return data


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message as it goes out: addresses in the order of the request, and content (None: as it is in the queue)."""

    sender: bytes
    recipients: tuple[bytes, ...]
    content: _Written | None
    place: Place
    dot_free: bool


class OutgoingChanges:
    """The tables of one worker. False if there is nothing to change."""

    def __init__(self, config: Config, options: OpenOptions, info: Report, warn: Report, *, lmtp: bool) -> None:
        def specs(name: str) -> tuple[str, list[str]]:
            name = parameter_name(name, lmtp)
            return name, parse_map_list(config.get(name))

        tables = [
            specs(name)
            for name in ("smtp_header_checks", "smtp_mime_header_checks", "smtp_nested_header_checks", "smtp_body_checks")
        ]
        self._checks = read_delivery_checks(config, tables, options)
        name, value = specs("smtp_generic_maps")
        self._generic = Maps(value, options, name)
        self._propagate = "generic" in config.words("propagate_unmatched_extensions")
        self._delimiter = config.get("recipient_delimiter")
        self._rules = rewrite_rules(config)
        self._own = own_addresses(config)
        parents = config.words("parent_domain_matches_subdomains")
        destinations = config.get("mydestination") if self._generic else ""
        self._destinations = DomainList(
            destinations, options, "mydestination", match_parents="mydestination" in parents
        )
        self._info = info
        self._warn = warn

    def __bool__(self) -> bool:
        return bool(self._generic) or bool(self._checks)

    async def make(self, request: DeliverRequest, reader: ContentReader) -> Outgoing:
        """The message of ``request`` as it is to go out. Raises LookupFailed, OSError, Unacceptable."""
        envelope = request.envelope
        sender = await self._mapped(envelope.sender)
        recipients = [await self._mapped(recipient.address) for recipient in envelope.recipients]
        place = request.place
        if envelope.flags & ContentFlag.TRACE:  # addresses are asked about, nothing is sent
            return Outgoing(sender, tuple(recipients), None, place, dot_free=False)
        head = reader.read(place, 0, PIECE_BYTES)
        headers, end = split_headers(head)
        while len(head) < place.content_length and b"\n" not in head[end:]:  # more of them, or of the last one
            head += reader.read(place, len(head), max(len(head), PIECE_BYTES))
            headers, end = split_headers(head)
        inspection = DeliveryInspection(self._checks, envelope, self._info, self._warn) if self._checks else None
        block, untouched = head[:end], frozenset[int]()
        if inspection is not None:
            changed = await inspection.primary(headers, head)
            if changed is not None:
                block, untouched = changed
                headers, _ = split_headers(block)
        if self._generic:
            block = await self._mapped_headers(block, headers, untouched)
        unchanged_body = inspection is None or not inspection.wants_body
        if unchanged_body and block == head[:end]:
            dot_free = bool(envelope.flags & ContentFlag.NO_DOT_LINES)
            return Outgoing(sender, tuple(recipients), None, place, dot_free)
        writer = _Writer(large=place.content_length > WHOLE_BYTES)
        writer.write(block)
        rest = head[end:]
        blank = 2 if rest.startswith(b"\r\n") else 1 if rest.startswith(b"\n") else 0
        writer.write(rest[:blank])
        position, rest = len(head), rest[blank:]
        while True:
            last = position >= place.content_length
            if inspection is not None:
                rest = await inspection.body(rest, last=last) if inspection.wants_body else rest
                if inspection.decision.rejected is not None:
                    raise Unacceptable(*inspection.decision.rejected)
            writer.write(rest)
            if last:
                break
            await asyncio.sleep(0)  # others want to work, too
            rest = reader.read(place, position, PIECE_BYTES)
            position += len(rest)
        new = Place(place.segment, place.offset, place.length, 0, writer.size)
        return Outgoing(sender, tuple(recipients), writer.written(), new, dot_free=False)

    async def _is_local(self, domain: str) -> bool:
        if to_bytes(domain).lower() == self._rules.myorigin.lower():
            return True
        if domain.startswith("["):
            return domain[1:-1].lower() in self._own
        return await self._destinations.match(domain)

    async def _mapped(self, address: bytes) -> bytes:
        """``address`` by smtp_generic_maps."""
        if not self._generic or not address:
            return address
        results = await self._generic.map_address(
            to_text(address), propagate=self._propagate, extension_delimiter=self._delimiter, is_local=self._is_local
        )
        if not results:
            return address
        if len(results) > 1:
            self._warn(f"multi-valued {self._generic.label} result for {to_text(address)}")
        return to_standard_form(self._rules, to_bytes(results[0]))

    async def _mapped_headers(self, block: bytes, headers: list[Header], untouched: frozenset[int]) -> bytes:
        out: list[bytes] = []
        kept_from = 0
        for header in headers:
            if header.start in untouched or header.key not in ADDRESS_HEADERS:
                continue
            answers = {address: await self._mapped(address) for address in addresses_in(header.value)}
            new = rewrite_addresses(header.value, _by(answers))
            if new != header.value:
                out += (block[kept_from : header.start], header.name, b":", new)
                kept_from = header.end
        out.append(block[kept_from:])
        return b"".join(out)


def _by(answers: dict[bytes, bytes]) -> Callable[[bytes], bytes]:
    return lambda address: answers.get(address, address)


class _Writer:
    """Collects what goes out."""

    def __init__(self, *, large: bool) -> None:
        self._file = unnamed_file("incoming") if large else None
        self._parts: list[bytes] = []
        self.size = 0

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self._file is None:
            self._parts.append(data)
            return
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) or 0 :]

    def written(self) -> _Written:
        return _Written(b"".join(self._parts), self._file)
