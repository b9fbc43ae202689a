"""What is fuzzed: functions of bytes that check an invariant. ``python -m fuzz`` feeds them with atheris; the files in
``tests/unit/fuzz/found`` (what fuzzing has found so far) and some seeds are played again by every test run.

Each target says in its docstring what must hold. An exception is a finding, so is a run of more than a few seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from estafeta.config.errors import ConfigError
from estafeta.config.expand import ExpandError, expand, names_in
from estafeta.config.main_cf import parse_main_cf
from estafeta.config.master_cf import parse_master_cf
from estafeta.config.pipe_attributes import BadAttributes, parse_pipe_attributes
from estafeta.daemons.cleanup.carriage_returns import without_bare_returns
from estafeta.daemons.smtpd.client_attributes import BadAttribute, parse_attributes
from estafeta.dns.wire import WireError, parse_response
from estafeta.mail.address import (
    AddressError,
    addresses_in,
    find_addresses,
    parse_path,
    quote_address,
    rewrite_addresses,
    split_address,
    unquote_address,
)
from estafeta.mail.header import split_headers
from estafeta.mail.mime import BodyScanner, Kind, MimeProblem, parse_content_type
from estafeta.protocol.smtp_client_commands import break_long_lines, dot_stuff
from estafeta.protocol.smtp_reply import ReplyError, ReplyReader
from estafeta.protocol.smtp_server import TRANSITIONS, ChunkContent, Command, Content, SmtpServer
from estafeta.sasl.machines import server_machine
from estafeta.sasl.properties import MECHANISMS
from estafeta.sasl.vocabulary import Account, Challenge, SaslFailed, ServerNames, WantAccount, WantCheck
from estafeta.spool.record import Damage, Found, iter_records, read_done_log
from estafeta.tables.ldap_message import Malformed, parse_filter, parse_url, read_entry, read_message, read_result
from estafeta.tables.rules import BadRule, parse_rule_line, parse_template
from estafeta.tls.policy import PolicyError, parse_policy

Target = Callable[[bytes], None]


def _cuts(data: bytes) -> tuple[bytes, list[int]]:
    """The first byte says where the rest is cut."""
    seed = data[:1]
    rest = data[1:]
    step = (seed[0] if seed else 0) % 23 + 1
    return rest, list(range(0, len(rest), step))


def _converse(pieces: list[bytes]) -> list[tuple[str, object]]:
    machine = SmtpServer()
    events: list[tuple[str, object]] = []
    for piece in pieces:
        machine.receive_data(piece)
        while (event := machine.next_event()) is not None:
            if isinstance(event, Command):
                events.append(("command", (event.verb, event.argument)))
                if event.verb == b"BDAT":
                    count, _, last = event.argument.partition(b" ")
                    if count.isdigit() and len(count) < 9 and machine.allows(b"BDAT"):
                        machine.expect_chunk(int(count), last.upper() == b"LAST")
                elif event.verb in TRANSITIONS[machine.state]:
                    machine.advance(event.verb)
            else:
                assert isinstance(event, Content | ChunkContent)
                if events and events[-1][0] == "content":
                    events[-1] = ("content", bytes(events[-1][1]) + event.data)  # type: ignore[operator]
                else:
                    events.append(("content", event.data))
                if event.last:
                    assert event.data.endswith(b"\n") or not event.data or isinstance(event, ChunkContent)
                    events.append(("end", None))
                    machine.end_transaction()
    return events


def smtp_server(data: bytes) -> None:
    """However the input of a session is cut, the same commands and the same content come out."""
    text, cuts = _cuts(data)
    start = b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
    whole = _converse([start + text])
    pieces = [text[a:b] for a, b in pairwise([*cuts, len(text)])]
    assert _converse([start, *pieces]) == whole


_LONE_DOT = re.compile(rb"(?:\r\n|\r|\n)\.(?:\r\n|\r|\n)")


def relay(data: bytes) -> None:
    """Smuggling: whatever content came by BDAT, what is sent on has one end of message even for a server that takes any mixture
    of carriage returns and line feeds for a line end.
    """
    text, cuts = _cuts(data)
    machine = SmtpServer()
    for verb in (b"EHLO", b"MAIL", b"RCPT"):
        machine.advance(verb)
    machine.expect_chunk(len(text), True)
    parts = []
    for start, end in pairwise([*cuts, len(text)]):
        machine.receive_data(text[start:end])
        while (event := machine.next_event()) is not None:
            assert isinstance(event, ChunkContent)
            clean = without_bare_returns(event.data, event.lines)
            parts.append(clean)
    content = b"".join(parts)
    for limit in (0, 40):
        wire = b"354 \r\n" + dot_stuff(break_long_lines(content, limit), dot_free=False) + b".\r\n"
        ends = [match.start() for match in _LONE_DOT.finditer(wire)]
        assert ends == [len(wire) - 5], (ends, wire)


def smtp_reply(data: bytes) -> None:
    """Server replies: whole and in pieces the same, ReplyError at worst, bounded memory."""

    def read(pieces: list[bytes]) -> list[tuple[int, bytes] | str]:
        reader = ReplyReader()
        found: list[tuple[int, bytes] | str] = []
        for piece in pieces:
            reader.feed(piece)
            try:
                while (reply := reader.next_reply()) is not None:
                    found.append((reply.code, b"\n".join(reply.lines)))
            except ReplyError:
                found.append("error")
                return found
        return found

    text, cuts = _cuts(data)
    assert read([text]) == read([text[a:b] for a, b in pairwise([*cuts, len(text)])])


def address(data: bytes) -> None:
    """Paths parse or raise AddressError; an address survives quoting."""
    for strict in (False, True):
        try:
            path = parse_path(data, strict)
        except AddressError:
            continue
        inside = path.address
        if b"\0" not in inside and b"\n" not in inside and b"\r" not in inside:
            local, domain = split_address(inside)
            if local and domain and b'"' not in domain:
                assert unquote_address(quote_address(inside)) == inside, inside


def header(data: bytes) -> None:
    """The headers put together are the input up to the body; addresses that are not changed leave the header as it was."""
    headers, end = split_headers(data)
    assert b"".join(data[one.start : one.end] for one in headers) == data[:end]
    for one in headers:
        spans = find_addresses(one.value)
        addresses_in(one.value)
        assert rewrite_addresses(one.value, lambda found: found) == one.value or spans


def mime(data: bytes) -> None:
    """The pieces of a body put together are the body, and the same however it is cut."""
    kind, _, body = data.partition(b"\n")
    text, cuts = _cuts(body)
    parse_content_type(kind)

    def scan(pieces: list[bytes]) -> list[tuple[Kind, bytes]]:
        found: list[tuple[Kind, bytes]] = []
        try:
            scanner = BodyScanner(kind, None, nesting_limit=5)
            for number, piece in enumerate(pieces):
                for one in scanner.feed(piece, last=number == len(pieces) - 1):
                    if found and one.kind is Kind.BODY and found[-1][0] is Kind.BODY:
                        found[-1] = (Kind.BODY, found[-1][1] + one.data)
                    else:
                        found.append((one.kind, one.data))
        except MimeProblem as problem:
            found.append((Kind.BODY, problem.problem.encode()))
            return found
        assert b"".join(part for _, part in found) == b"".join(pieces)
        return found

    whole = scan([text])
    assert scan([text[a:b] for a, b in pairwise([*cuts, len(text)])] or [text]) == whole


def main_cf(data: bytes) -> None:
    """main.cf and its values: ConfigError or ExpandError at worst."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        found = parse_main_cf(text)
    except ConfigError:
        return
    values = {setting.name: setting.value for setting in found.settings.values()}
    for value in values.values():
        try:
            expand(value, values.get)
            names_in(value)
        except (ExpandError, ConfigError):
            pass


def master_cf(data: bytes) -> None:
    """master.cf: ConfigError at worst; pipe services: BadAttributes at worst."""
    try:
        services = parse_master_cf(data.decode("utf-8", "surrogateescape"))
    except ConfigError:
        return
    for service in services:
        try:
            parse_pipe_attributes(service.args)
        except BadAttributes:
            pass


def dns(data: bytes) -> None:
    """DNS answers: WireError at worst."""
    try:
        parse_response(data)
    except WireError:
        pass


def spool(data: bytes) -> None:
    """Queue files and done logs: every byte is accounted for."""
    end = 0
    for one in iter_records(data):
        assert isinstance(one, Found | Damage)
        assert one.offset >= end
        end = one.offset + one.length
    assert end <= len(data)
    read_done_log(data)


def rules(data: bytes) -> None:
    """Lines of pattern tables: BadRule at worst."""
    text = data.decode("utf-8", "surrogateescape")
    for number, line in enumerate(text.split("\n")):
        try:
            rule = parse_rule_line(number, line, "ignoring")
            if rule.result:
                parse_template(rule.result, "out-of-range", lambda _: None)
        except BadRule:
            pass



def sasl(data: bytes) -> None:
    """Nobody gets in with nonsense, whatever the mechanism; SaslFailed is the one way out."""
    names = sorted(MECHANISMS)
    mechanism = names[(data[:1] or b"\0")[0] % len(names)]
    initial, *responses = data[1:].split(b"\xff")
    account = Account(b"a password that nobody guesses")
    machine = server_machine(mechanism, ServerNames("mail.test", "realm.test"), initial or None)
    try:
        ask = next(machine)
        while True:
            if isinstance(ask, Challenge):
                if not responses:
                    return
                ask = machine.send(responses.pop(0))
            elif isinstance(ask, WantAccount):
                ask = machine.send(account)
            elif isinstance(ask, WantCheck):
                ask = machine.send(ask.password == account.password)
            else:
                ask = machine.send(ask.derive())
    except SaslFailed:
        return
    except StopIteration:
        raise AssertionError(f"{mechanism} let somebody in") from None


def xclient(data: bytes) -> None:
    """XCLIENT and XFORWARD attributes: values without control characters, or BadAttribute."""
    text = data.decode("latin-1")
    for command in ("XCLIENT", "XFORWARD"):
        try:
            found = parse_attributes(command, text)
        except BadAttribute:
            continue
        assert all(char.isprintable() or ord(char) > 126 for value in found.values() for char in value), found


def tls_policy(data: bytes) -> None:
    """Results of smtp_tls_policy_maps: PolicyError at worst."""
    try:
        parse_policy(data.decode("utf-8", "surrogateescape"))
    except PolicyError:
        pass


def ldap(data: bytes) -> None:
    """What a directory server says, filters and URLs: Malformed at worst."""
    try:
        _, _, body = read_message(data)
        read_result(body)
    except Malformed:
        pass
    try:
        _, _, body = read_message(data)
        read_entry(body)
    except Malformed:
        pass
    text = data.decode("utf-8", "surrogateescape")
    for parse in (parse_filter, parse_url):
        try:
            parse(text)
        except Malformed:
            pass


TARGETS: dict[str, Target] = {
    one.__name__: one
    for one in (smtp_server, relay, smtp_reply, address, header, mime, main_cf, master_cf, dns, spool, rules,
                sasl, xclient, tls_policy, ldap)
}
