"""header_checks, mime_header_checks, nested_header_checks and body_checks: what the tables say of a message's lines, and what
follows from it. cleanup(8) has them for mail that arrives; smtp(8) for mail that leaves, where rules can only change, log or
warn (``DeliveryInspection``).

Source: header_checks(5), postconf(5) body_checks_size_limit, header_size_limit, line_length_limit; log lines as Postfix 3.7
writes them. Header checks see one logical header at a time (line ends inside are LF), body checks one line at a time; a body
line beyond line_length_limit is looked at in pieces of that length. Invariants: what no rule touches goes on byte by byte;
a table that cannot be asked makes the whole message wait (LookupFailed); time is linear in the message.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from estafeta.ipc.messages import Envelope
from estafeta.mail.address import quote_address
from estafeta.mail.header import HEADER, Header
from estafeta.mail.mime import MIME_HEADERS, BodyScanner, Kind, MimeProblem, Piece
from estafeta.mail.text import to_bytes, to_text
from estafeta.service.content_tables import ContentChecks
from estafeta.tables.maps import Maps

_LOGGED = 200  # octets of a header or line that a log line shows
_TARGET = re.compile(r"[^\s:]+:")
_DSN = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")
_HEADER_TEXT = re.compile(r"[!-9;-~]+[ \t]*:")

Report = Callable[[str], None]


@dataclass(slots=True)
class Decision:
    """What the checks decided about a whole message."""

    rejected: tuple[str, str] | None = None  # enhanced status code, text
    discard: bool = False
    hold: bool = False
    content_filter: str = ""
    redirect: bytes = b""
    copies: list[bytes] = field(default_factory=list)
    passed: bool = False  # no further checks

    @property
    def is_over(self) -> bool:
        """True if the rest of the message is not looked at."""
        return self.passed or self.discard or bool(self.redirect) or self.rejected is not None


@dataclass(frozen=True, slots=True)
class Replaced:
    """What a rule made of a header or line: what goes before it, and itself (None: it goes)."""

    before: bytes
    text: bytes | None


class Inspection:
    """The checks of one message, from its first header to its last line."""

    replaced_is_final = False  # a header from REPLACE may be rewritten, and counts for what is missing
    __slots__ = ("_body_seen", "_checks", "_envelope", "_info", "_line", "_origin", "_plain", "_scanner", "_warn", "decision")

    def __init__(self, checks: ContentChecks, envelope: Envelope, info: Report, warn: Report) -> None:
        self._checks = checks
        self._envelope = envelope
        self._info = info
        self._warn = warn
        self._origin = _origin(envelope)  # before recipients are rewritten
        self._scanner: BodyScanner | None = None
        self._body_seen = 0  # octets of the current segment that body_checks have seen
        self._line = b""  # the beginning of a line that is not complete
        self._plain = True  # the body has no parts
        self.decision = Decision()

    # -- headers ------------------------------------------------------------------------------------------------------

    async def primary(self, headers: list[Header], content: bytes) -> tuple[bytes, frozenset[int]] | None:
        """Check the message's own headers; None if nothing changes, else the new header block, and where in it the
        headers begin that are not to be rewritten. Notes Content-Type and encoding for the body.
        """
        out: list[bytes] = []
        untouched: list[int] = []
        kept_from = 0
        length = 0
        kind: bytes | None = None
        encoding: bytes | None = None
        mime = self._checks.mime_input
        for header in headers:
            key = header.key
            value: bytes | None = header.value
            if not self.decision.is_over:
                is_mime = mime and key in MIME_HEADERS
                text = header.name + b":" + header.value
                changed = await self.header(text, self._checks.mime if is_mime else self._checks.header, is_mime=is_mime)
                if changed is not None:
                    kept = content[kept_from : header.start]
                    length += len(kept)
                    if changed.before:
                        untouched.append(length)
                    if self.replaced_is_final and changed.text is not None and changed.text != text:
                        untouched.append(length + len(changed.before))
                    new = changed.text if changed.text is not None else b""
                    out += (kept, changed.before, new)
                    length += len(changed.before) + len(new)
                    kept_from = header.end
                    if changed.text != text:
                        found = HEADER.match(new)
                        key, value = (found[1].lower(), found[2]) if found else (b"", None)
            if key == b"content-type":
                kind = value
            elif key == b"content-transfer-encoding":
                encoding = value
        if mime and not self.decision.is_over:
            self._enter_body(kind, encoding)
        if not out:
            return None
        end = headers[-1].end
        out.append(content[kept_from:end])
        return b"".join(out), frozenset(untouched)

    def _enter_body(self, kind: bytes | None, encoding: bytes | None) -> None:
        checks = self._checks
        try:
            self._scanner = BodyScanner(
                kind, encoding, nesting_limit=checks.nesting_limit, boundary_limit=checks.boundary_limit,
                strict_encoding=checks.strict_encoding,
            )  # fmt: skip
        except MimeProblem as problem:
            self._malformed(problem.problem, problem.context)
        else:
            self._plain = self._scanner.is_plain and not checks.strict_body

    def _malformed(self, problem: str, context: bytes) -> None:
        self.decision.rejected = ("5.6.0", problem)
        origin = self._origin.split(" proto=")[0]
        text = f"{problem}: {_printable(context[:_LOGGED])}"
        self._info(f"{self._envelope.queue_id}: reject: mime-error {text} from {origin}")

    async def received(self, header: bytes) -> bytes:
        """The Received header that goes on top."""
        changed = await self.header(header, self._checks.header)
        return header if changed is None else changed.before + (changed.text or b"")

    async def header(self, text: bytes, maps: Maps, *, is_mime: bool = False) -> Replaced | None:
        """One logical header with its line end; None: it stays. Raises LookupFailed."""
        if self.decision.is_over:
            return None
        if self._checks.strict_headers and not text.isascii() and self._checks.mime_input:
            self._malformed("improper use of 8-bit data in message header", text.strip())
            return None
        if not maps:
            return None
        logical = text.replace(b"\r\n", b"\n").removesuffix(b"\n")
        found = await maps.find(to_text(logical))
        if found is None:
            return None
        return self._act(found, "header", logical, text, maps.label)

    # -- body ---------------------------------------------------------------------------------------------------------

    @property
    def wants_body(self) -> bool:
        """False if the rest of the message cannot matter any more."""
        if self.decision.is_over:
            return False
        return bool(self._checks.body) or not self._plain

    async def body(self, data: bytes, *, last: bool) -> bytes:
        """The next stretch of the body, as it goes on; raises LookupFailed."""
        scanner = self._scanner
        if self._plain or scanner is None:
            return await self._lines(data, last=last)
        out: list[bytes] = []
        try:
            for piece in scanner.feed(data, last=last):
                out.append(self._flush_line() + piece.data if self.decision.is_over else await self._piece(piece))
        except MimeProblem as problem:
            self._malformed(problem.problem, problem.context)
            return data
        if last and self._line:
            out.append(await self._lines(b"", last=True))
        new = b"".join(out)
        return data if new == data else new

    async def _piece(self, piece: Piece) -> bytes:
        kind, data, encoding = piece
        if kind is Kind.BODY:
            if self._checks.strict_body and not data.isascii() and encoding not in (b"8bit", b"binary"):
                line = next(line for line in data.split(b"\n") if not line.isascii())
                self._malformed("improper use of 8-bit data in message body", line.strip())
                return self._flush_line() + data
            return await self._lines(data, last=False)
        if kind is Kind.BOUNDARY:
            text = await self._lines(data, last=True)  # still counts for the segment before it
            self._body_seen = 0
            return text
        if kind is Kind.CLOSING:
            self._body_seen = 0
            return await self._lines(data, last=True)
        if kind is Kind.BLANK:
            self._body_seen = 0
            return self._flush_line() + data
        key = data.partition(b":")[0].rstrip().lower()
        nested = kind is Kind.NESTED_HEADER and key not in MIME_HEADERS
        changed = await self.header(data, self._checks.nested if nested else self._checks.mime)
        return self._flush_line() + (data if changed is None else changed.before + (changed.text or b""))

    def _flush_line(self) -> bytes:
        line, self._line = self._line, b""
        return line

    async def _lines(self, data: bytes, *, last: bool) -> bytes:
        """body_checks on some whole lines and perhaps a beginning of one, which waits for its rest."""
        if not self._checks.body:
            return data
        limit = self._checks.body_limit
        if (limit and self._body_seen >= limit and not self._line) or self.decision.is_over:
            return self._flush_line() + data
        if self._line:
            data = self._line + data
            self._line = b""
        line_limit = self._checks.line_limit
        out: list[bytes] = []
        start = kept_from = 0
        end = len(data)
        whole_lines = end if last else data.rfind(b"\n") + 1
        text = data[:whole_lines].replace(b"\r\n", b"\n")
        if self._checks.body.excludes(text) and max(map(len, text.split(b"\n"))) <= line_limit:
            self._body_seen += len(text)  # the usual case: nothing in sight
            self._line = data[whole_lines:]
            return data[:whole_lines]
        while start < end:
            stop = data.find(b"\n", start) + 1
            if stop == 0:
                stop = end
                if not last and end - start < line_limit:
                    break
            if self.decision.is_over or (limit and self._body_seen >= limit):
                start = end
                break
            whole = data[start:stop]
            line = whole.rstrip(b"\n")
            line = line.removesuffix(b"\r")
            if len(line) > line_limit:
                line = data[start : start + line_limit]
                stop = start + line_limit
                whole = line
            self._body_seen += len(line) + 1
            changed = await self._line_checked(line, whole) if line else None  # no rule is asked about empty lines
            if changed is not None:
                out += (data[kept_from:start], changed.before, changed.text or b"")
                kept_from = stop
            start = stop
        if start < end:
            self._line = data[start:]
        if not out:
            return data[kept_from:start] if start < end else data
        out.append(data[kept_from:start])
        return b"".join(out)

    async def _line_checked(self, line: bytes, whole: bytes) -> Replaced | None:
        maps = self._checks.body
        found = await maps.find(to_text(line))
        return None if found is None else self._act(found, "body", line, whole, maps.label)

    # -- actions ------------------------------------------------------------------------------------------------------

    def _act(self, value: str, kind: str, shown: bytes, text: bytes, table: str) -> Replaced | None:
        """Do what a rule says. ``text`` is the header or line with its line end."""
        word, _, rest = value.partition(" ")
        word = word.upper()
        rest = rest.strip()
        act = self._actions.get(word)
        if act is not None:
            act(self, rest, kind, shown, table)
            return None
        end = b"\r\n" if text.endswith(b"\r\n") else b"\n" if text.endswith(b"\n") else b""
        if word in ("DUNNO", "OK"):
            return None
        if word == "IGNORE":
            return Replaced(b"", None)
        if word == "STRIP":
            self._log("strip", kind, shown, rest)
            return Replaced(b"", None)
        if word in ("REPLACE", "PREPEND"):
            if not rest:
                self._warn(f"{word} action without text in {table} map")
            elif kind == "header" and not _HEADER_TEXT.match(rest):
                self._warn(f'bad {word} header text "{rest}" in {table} map -- need "headername: headervalue"')
            else:
                self._log(word.lower(), kind, shown, rest)
                new = to_bytes(rest).replace(b"\n", b"\r\n") + (end or b"\r\n")
                return Replaced(b"", new) if word == "REPLACE" else Replaced(new, text)
            return None
        self._unknown(value, table)
        return None

    def _unknown(self, value: str, table: str) -> None:
        self._warn(f"unknown command in {table} map: {value}")

    @property
    def _actions(self) -> dict[str, Callable[[Inspection, str, str, bytes, str], None]]:
        return _ACTIONS

    def _reject(self, rest: str, kind: str, shown: bytes, table: str) -> None:
        found = _DSN.match(rest)
        dsn, said = (found[1], rest[found.end() :]) if found else ("5.7.1", rest)
        said = said or "message content rejected"
        self.decision.rejected = (dsn, said)
        self._log("reject", kind, shown, f"{dsn} {said}")

    def _log(self, what: str, kind: str, shown: bytes, rest: str = "") -> None:
        text = _printable(shown[:_LOGGED])
        self._info(f"{self._envelope.queue_id}: {what}: {kind} {text} from {self._origin}{': ' if rest else ''}{rest}")

    def _discard(self, rest: str, kind: str, shown: bytes, table: str) -> None:
        self._log("discard", kind, shown, rest)
        self.decision.discard = True

    def _hold(self, rest: str, kind: str, shown: bytes, table: str) -> None:
        if not self.decision.hold:
            self._log("hold", kind, shown, rest)
        self.decision.hold = True

    def _filter(self, rest: str, kind: str, shown: bytes, table: str) -> None:
        if not rest:
            self._warn(f"missing FILTER command argument in {table} map")
        elif not _TARGET.match(rest):
            self._warn(f"bad FILTER command {rest} in {table} -- need transport:destination")
        else:
            self._log("filter", kind, shown, rest)
            self.decision.content_filter = rest

    def _redirect(self, rest: str, kind: str, shown: bytes, table: str) -> None:
        if "@" not in rest.strip("@"):
            self._warn(f'bad REDIRECT target "{rest}" in {table} map -- need user@domain')
            return
        self._log("redirect", kind, shown, rest)
        self.decision.redirect = to_bytes(rest)  # nothing more is looked at, whatever the manual says

    def _bcc(self, rest: str, kind: str, shown: bytes, table: str) -> None:
        if "@" not in rest.strip("@"):
            self._warn(f'bad BCC address "{rest}" in {table} map -- need user@domain')
            return
        self._log("bcc", kind, shown, rest)
        self.decision.copies.append(to_bytes(rest))

    def _warning(self, rest: str, kind: str, shown: bytes, table: str) -> None:
        self._log("warning", kind, shown, rest)

    def _information(self, rest: str, kind: str, shown: bytes, table: str) -> None:
        self._log("info", kind, shown, rest)

    def _pass(self, rest: str, kind: str, shown: bytes, table: str) -> None:
        self._log("pass", kind, shown, rest)
        self.decision.passed = True


_ACTIONS: dict[str, Callable[[Inspection, str, str, bytes, str], None]] = {
    "REJECT": Inspection._reject,
    "DISCARD": Inspection._discard,
    "HOLD": Inspection._hold,
    "FILTER": Inspection._filter,
    "REDIRECT": Inspection._redirect,
    "BCC": Inspection._bcc,
    "WARN": Inspection._warning,
    "INFO": Inspection._information,
    "PASS": Inspection._pass,
}


class DeliveryInspection(Inspection):
    """The checks of a message that leaves: its time and destination are settled, and rules that would change them warn."""

    replaced_is_final = True
    __slots__ = ()

    @property
    def _actions(self) -> dict[str, Callable[[Inspection, str, str, bytes, str], None]]:
        return _DELIVERY_ACTIONS

    def _unknown(self, value: str, table: str) -> None:
        self._warn(f"unsupported command in {table} map: {value}")

    def _log(self, what: str, kind: str, shown: bytes, rest: str = "") -> None:
        text = _printable(shown[:_LOGGED])
        self._info(f"{self._envelope.queue_id}: {what}: {kind} {text}{': ' if rest else ''}{rest}")


_DELIVERY_ACTIONS = {word: act for word, act in _ACTIONS.items() if word in ("WARN", "INFO")}


def _printable(data: bytes) -> str:
    """For the log: control characters and what is not UTF-8 become ``?``."""
    text = data.decode("utf-8", "replace").replace("\ufffd", "?")
    return "".join(char if char.isprintable() else "?" for char in text)


def _origin(envelope: Envelope) -> str:
    """``client[address]; from=<...> to=<...> proto=... helo=<...>``; to: the last recipient, as it was given."""
    where = f"{envelope.client_name}[{envelope.client_address}]" if envelope.client_address else "local"
    recipient = envelope.recipients[-1] if envelope.recipients else None
    text = f"{where}; from=<{_printable(quote_address(envelope.sender))}>"
    if recipient is not None:
        text += f" to=<{_printable(quote_address(recipient.address))}>"
    if envelope.protocol:
        text += f" proto={envelope.protocol}"
    if envelope.helo_name:
        text += f" helo=<{_printable(to_bytes(envelope.helo_name))}>"
    return text
