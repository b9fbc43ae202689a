"""MAIL, RCPT and VRFY: syntax, parameters, restrictions.

Source: RFC 5321 section 4.1.1.2 and 4.1.1.3, RFC 1870 (SIZE), RFC 6152 (BODY), RFC 3461 (DSN), RFC 6531 (SMTPUTF8).
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from estafeta.daemons.smtpd.access import Verdict, is_hostname, is_numeric, shown
from estafeta.daemons.smtpd.authentication import log_tail
from estafeta.daemons.smtpd.proxy import ProxyTransaction
from estafeta.daemons.smtpd.stages import check
from estafeta.daemons.smtpd.transaction import Transaction
from estafeta.ipc.channel import ServiceLost
from estafeta.ipc.messages import (
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    AddressClass,
    ContentFlag,
    Recipient,
)
from estafeta.mail.address import AddressError, parse_path
from estafeta.mail.text import to_text
from estafeta.protocol.smtp_server import Command
from estafeta.tables.table import LookupFailed

if TYPE_CHECKING:
    from estafeta.daemons.smtpd.session import Session

_NOTIFY = {b"SUCCESS": NOTIFY_SUCCESS, b"FAILURE": NOTIFY_FAILURE, b"DELAY": NOTIFY_DELAY}
_XTEXT = re.compile(rb"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})+")
_ORCPT = re.compile(rb"[A-Za-z0-9-]+;((?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})*)")
_LABEL = rb"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_SIMPLE = re.compile(rb"<([A-Za-z0-9_.][A-Za-z0-9_.-]*@(?:" + _LABEL + rb"\.){1,8}[A-Za-z][A-Za-z0-9]{0,62})>((?: .*)?)")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_BLANK = re.compile(rb"[ \t]")


class _BadParameter(Exception):
    """Carries the reply."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply)
        self.reply = reply


def _path(session: Session, command: Command, keyword: bytes) -> tuple[bytes, list[bytes]] | None:
    """The address and the parameters behind ``FROM:`` or ``TO:``; None if the line has not that form."""
    argument = command.argument
    if argument[: len(keyword)].upper() != keyword or argument[len(keyword) : len(keyword) + 1] != b":":
        return None
    rest = argument[len(keyword) + 1 :].lstrip()
    if not rest:
        return None
    simple = _SIMPLE.fullmatch(rest)
    if simple is not None:
        return simple[1], simple[2].split()
    settings = session.service.settings
    if settings.strict_rfc821 and not rest.startswith(b"<"):
        raise AddressError("address without <>")
    if rest.startswith(b"<<"):
        rest = rest[1:].replace(b">>", b">", 1)
    if rest.startswith(b"<@") and b":" not in rest.partition(b">")[0]:
        end = rest.find(b">")  # a domain without a user: parse_path has no word for it
        address, parameters = rest[1:end], rest[end + 1 :]
        if end < 0 or b"@" in address[1:]:
            raise AddressError("bad address")
    else:
        path = parse_path(rest, False)
        address, parameters = path.address, path.parameters
    words = parameters.split()
    utf8 = any(word.upper() == b"SMTPUTF8" for word in words) or (
        session.transaction is not None and session.transaction.smtputf8
    )
    check_address(address, rest, utf8=utf8, allow_min_user=settings.allow_min_user)
    return address, words


def check_address(address: bytes, written: bytes, *, utf8: bool, allow_min_user: bool) -> None:
    """What Postfix takes for an address in an envelope; raises AddressError. ``written`` is how it came."""
    local, at, domain = address.rpartition(b"@")
    if not at:
        local = address
    if b"@@" in address or (at and not domain):
        raise AddressError("missing domain")
    if local.startswith(b"-") and not allow_min_user:
        raise AddressError("address starts with a hyphen")
    if _BLANK.search(local) and not any(mark in written for mark in (b'"', b"\\", b"(")):
        raise AddressError("blank in address")
    if not at:
        return
    if domain.startswith(b"["):
        literal = domain[1:-1].decode("latin-1")
        if not domain.endswith(b"]") or not is_numeric(literal[5:] if literal[:5].lower() == "ipv6:" else literal):
            raise AddressError("bad address literal")
        return
    if not domain.isascii() and not utf8:
        raise AddressError("domain name needs SMTPUTF8")
    if domain.endswith(b".."):
        raise AddressError("bad domain name")
    if not is_hostname(to_text(domain)):
        raise AddressError("bad domain name")


def _illegal(session: Session, verb: str, command: Command) -> None:
    text = to_text(command.argument.partition(b":")[2].strip() or command.argument)
    if b"\0" in command.argument or (b"<" in command.argument and b">" not in command.argument):
        return
    if session.service.settings.strict_rfc821 and not text.startswith("<"):
        text = text.partition(" ")[0]
    session.warning(f"Illegal address syntax from {session.where} in {verb} command: {text}")


async def mail_command(session: Session, command: Command) -> None:
    """MAIL FROM."""
    settings = session.service.settings
    if settings.helo_required and not session.helo:
        session.failed(b"MAIL", b"503 5.5.1 Error: send HELO/EHLO first")
        return
    if session.is_limited:
        refusal = await session.service.limits.exceeded(session, "message")
        if refusal is not None:
            session.failed(b"MAIL", refusal)
            return
    try:
        parsed = _path(session, command, b"FROM")
    except AddressError:
        _illegal(session, "MAIL", command)
        session.failed(b"MAIL", b"501 5.1.7 Bad sender address syntax")
        return
    if parsed is None:
        session.failed(b"MAIL", b"501 5.5.4 Syntax: MAIL FROM:<address>")
        return
    try:
        session.local_client = await session.service.local_clients.match(session.facts)
    except LookupFailed as error:
        session.warning(str(error))
        session.failed(b"MAIL", b"451 4.3.0 Error: temporary lookup failure")
        return
    transaction = Transaction(parsed[0], time.time())
    try:
        for parameter in parsed[1]:
            _mail_parameter(session, transaction, parameter)
    except _BadParameter as bad:
        session.failed(b"MAIL", bad.reply)
        return
    session.facts.sender = transaction.sender
    session.facts.sasl_sender = transaction.sasl_sender or ""
    session.facts.recipient = None
    limit = settings.message_size_limit
    if limit and transaction.declared_size > limit:
        verdict = Verdict(552, "5.3.4", "Message size exceeds fixed limit")
        session.log_reject(verdict, "MAIL")
        session.facts.sender = None
        session.failed(b"MAIL", verdict.reply)
        return
    if not session.service.has_space(transaction.declared_size):
        verdict = Verdict(452, "4.3.1", "Insufficient system storage")
        session.log_reject(verdict, "MAIL")
        session.facts.sender = None
        session.failed(b"MAIL", verdict.reply)
        return
    if not settings.delay_reject:
        refused = session.refused or await check(session, "sender", "MAIL")
        if refused is not None:
            session.facts.sender = None
            session.failed(b"MAIL", refused.reply)
            return
    if session.service.proxy_filter is not None:
        transaction.mail_line = command.line
        refusal = b"" if settings.delay_open else await _open_proxy(session, transaction)
        if session.closed:
            return
        if refusal:
            session.facts.sender = None
            session.failed(b"MAIL", refusal)
            return
    session.begin(transaction)
    session.ok(b"MAIL", b"250 2.1.0 Ok")


async def _open_proxy(session: Session, transaction: Transaction) -> bytes:
    """Connect to the before-queue filter up to MAIL; b"", or the reply that refuses."""
    proxy_filter = session.service.proxy_filter
    assert proxy_filter is not None
    proxy = ProxyTransaction(proxy_filter, session, transaction.mail_line)
    refusal = await proxy.open()
    if session.closed or refusal:
        proxy.close()
        return refusal
    transaction.proxy = proxy
    _log_client(session, "NOQUEUE")
    return b""


async def _ask_proxy(session: Session, transaction: Transaction, line: bytes) -> bytes | None:
    """What the before-queue filter has against a recipient; b"": nothing; None: the client is gone."""
    refusal = b"" if transaction.proxy is not None else await _open_proxy(session, transaction)
    if not refusal and transaction.proxy is not None:
        refusal = await transaction.proxy.recipient(line)
    return None if session.closed else refusal


def _mail_parameter(session: Session, transaction: Transaction, parameter: bytes) -> None:
    name, _, value = parameter.partition(b"=")
    name = name.upper()
    if name == b"SIZE" and len(parameter) > 4:  # without "=" it is no option that we know
        if not value.isdigit():
            raise _BadParameter(b"501 5.5.4 Bad message size syntax")
        if len(value) > 18:
            raise _BadParameter(b"552 5.3.4 Message size exceeds file system imposed limit")
        transaction.declared_size = int(value)
    elif name == b"BODY" and value.upper() in (b"8BITMIME", b"7BIT"):
        transaction.eight_bit = value.upper() == b"8BITMIME"
    elif name in (b"RET", b"ENVID") and not session.service.settings.dsn:
        raise _BadParameter(b"501 5.7.1 DSN support is disabled")
    elif name == b"RET":
        if transaction.ret or value.upper() not in (b"FULL", b"HDRS"):
            raise _BadParameter(b"501 5.5.4 Bad RET parameter syntax")
        transaction.ret = value.upper().decode()
    elif name == b"ENVID":
        if transaction.envid or not _XTEXT.fullmatch(value):
            raise _BadParameter(b"501 5.5.4 Bad ENVID parameter syntax")
        transaction.envid = value
    elif name == b"SMTPUTF8" and not value and session.service.settings.smtputf8:
        transaction.smtputf8 = True
    elif name == b"AUTH" and (value or (parameter.endswith(b"=") and session.service.authentication is not None)):
        # RFC 4954 section 5: without an authenticated client it means <>.
        if session.service.authentication is not None:
            if transaction.sasl_sender is not None:
                raise _BadParameter(b"503 5.5.4 Error: multiple AUTH= options")
            known = session.facts.sasl_username and value != b"<>"
            transaction.sasl_sender = _UNPRINTABLE.sub("?", to_text(value)) if known else ""
    else:
        raise _BadParameter(b"555 5.5.4 Unsupported option: " + parameter)


def _rcpt_parameter(recipient: Recipient, parameter: bytes, session: Session) -> None:
    name, equals, value = parameter.partition(b"=")
    name = name.upper()
    if name in (b"NOTIFY", b"ORCPT") and equals and not session.service.settings.dsn:
        raise _BadParameter(b"501 5.7.1 DSN support is disabled")
    if name == b"NOTIFY" and equals:
        words = value.upper().split(b",")
        if len(words) > 1 and not words[-1]:
            words.pop()
        if recipient.notify:
            raise _BadParameter(b"501 5.5.4 Error: Bad NOTIFY parameter syntax")
        if words == [b"NEVER"]:
            recipient.notify = NOTIFY_NEVER
            return
        notify = 0
        for word in words:
            bit = _NOTIFY.get(word)
            if bit is None:
                if word != b"NEVER":
                    session.warning(f'unknown DSN NOTIFY command value "{to_text(word)}" in "{to_text(value)}"')
                raise _BadParameter(b"501 5.5.4 Error: Bad NOTIFY parameter syntax")
            notify |= bit
        recipient.notify = notify
    elif name == b"ORCPT":
        if recipient.orcpt or not _ORCPT.fullmatch(value) or len(value) > 500:
            raise _BadParameter(b"501 5.5.4 Error: Bad ORCPT parameter syntax")
        recipient.orcpt = value
    else:
        raise _BadParameter(b"555 5.5.4 Unsupported option: " + parameter)


async def rcpt_command(session: Session, command: Command) -> None:
    """RCPT TO."""
    service = session.service
    settings = service.settings
    transaction = session.transaction
    assert transaction is not None
    if session.is_limited:
        refusal = await service.limits.exceeded(session, "recipient")
        if refusal is not None:
            session.failed(b"RCPT", refusal)
            return
    if len(transaction.recipients) >= settings.recipient_limit:
        transaction.overshoot += 1
        reply = b"452 4.5.3 Error: too many recipients"
        if transaction.overshoot > settings.recipient_overshoot_limit:
            session.failed(b"RCPT", reply)
        else:
            session.refuse_softly(b"RCPT", reply)
        return
    try:
        parsed = _path(session, command, b"TO")
    except AddressError:
        _illegal(session, "RCPT", command)
        session.failed(b"RCPT", b"501 5.1.3 Bad recipient address syntax")
        return
    if parsed is None:
        session.failed(b"RCPT", b"501 5.5.4 Syntax: RCPT TO:<address>")
        return
    address, parameters = parsed
    if not address:
        _illegal(session, "RCPT", command)
        session.failed(b"RCPT", b"501 5.1.3 Bad recipient address syntax")
        return
    recipient = Recipient(address)
    try:
        for parameter in parameters:
            _rcpt_parameter(recipient, parameter, session)
    except _BadParameter as bad:
        session.failed(b"RCPT", bad.reply)
        return
    session.facts.recipient = address
    verdict = await _recipient_verdict(session, address)
    if session.closed:
        return
    if verdict is not None:
        transaction.rejected_recipients += 1
        session.failed(b"RCPT", verdict.reply)
        return
    if service.proxy_filter is not None:
        refusal = await _ask_proxy(session, transaction, command.line)
        if refusal is None:
            return
        if refusal:
            transaction.rejected_recipients += 1
            session.failed(b"RCPT", refusal)
            return
    elif not transaction.queue_id:
        transaction.queue_id = service.ids.next()
        _log_client(session, transaction.queue_id)
    transaction.recipients.append(recipient)
    if transaction.smtputf8:
        transaction.flags |= ContentFlag.SMTPUTF8
    session.ok(b"RCPT", b"250 2.1.5 Ok")


def _log_client(session: Session, queue_id: str) -> None:
    forwarded = session.forwarded.log_suffix() if session.forwarded is not None else ""
    login = log_tail(session) if session.facts.sasl_username else ""
    session.info(f"{queue_id}: client={session.where}{login}{forwarded}")


async def _recipient_verdict(session: Session, address: bytes) -> Verdict | None:
    service = session.service
    session.facts.begin_recipient()
    if session.refused is not None:
        session.log_reject(session.refused, "RCPT")
        return session.refused
    if address.lower() == b"postmaster":
        return None
    stages = service.settings.recipient_stages
    for stage in ("client", "helo", "sender", *stages) if service.settings.delay_reject else stages:
        verdict = await check(session, stage, "RCPT")
        if verdict is not None:
            return verdict
    if session.facts.defer_if_permit is not None:
        verdict = session.facts.defer_if_permit
        session.log_reject(verdict, "RCPT")
        return verdict
    if not service.settings.reject_unlisted_recipient or session.facts.is_discarded:
        return None
    try:
        verdict = await service.access.refuse_unlisted(address, session.facts.sender or b"", "Recipient")
    except (LookupFailed, ServiceLost) as error:
        session.warning(f"recipient check: {error}")
        verdict = Verdict(451, "4.3.0", f"<{shown(address)}>: Temporary lookup failure")
    if verdict is not None and service.retiring and verdict.code >= 500:
        # Our tables are those of the old configuration, the address was resolved with the new one: let the successor decide.
        session.reply_now(f"421 4.3.2 {service.settings.myhostname} Service not available: new configuration".encode())
        session.close()
    elif verdict is not None:
        session.log_reject(verdict, "RCPT")
    return verdict


async def vrfy_command(session: Session, command: Command) -> None:
    """VRFY: 252 for what RCPT would take."""
    settings = session.service.settings
    if settings.disable_vrfy:
        session.failed(b"VRFY", b"502 5.5.1 VRFY command is disabled")
        return
    text = command.argument
    if text.upper().endswith(b" SMTPUTF8"):
        text = text[:-9].rstrip()
    if not text:
        session.failed(b"VRFY", b"501 5.5.4 Syntax: VRFY address [SMTPUTF8]")
        return
    try:
        address = parse_path(text, False)
        if address.parameters or not address.address or b" " in text:
            raise AddressError("more than an address")
    except AddressError:
        session.warning(f"Illegal address syntax from {session.where} in VRFY command: {to_text(text)}")
        session.failed(b"VRFY", b"501 5.1.3 Bad recipient address syntax")
        return
    facts = session.facts
    before, deferred = facts.recipient, facts.defer_if_permit
    facts.recipient = address.address
    facts.defer_if_permit = facts.session_defer
    verdict = None
    for stage in session.service.settings.recipient_stages:
        verdict = verdict or await check(session, stage, "VRFY")
    if verdict is None and facts.defer_if_permit is not None:
        verdict = facts.defer_if_permit
        session.log_reject(verdict, "VRFY")
    elif verdict is None:
        try:
            verdict = await session.service.access.refuse_unlisted(address.address, b"", "Recipient")
        except (LookupFailed, ServiceLost):
            verdict = Verdict(451, "4.3.0", f"<{shown(address.address)}>: Temporary lookup failure")
        if verdict is not None:
            session.log_reject(verdict, "VRFY")
    facts.recipient, facts.defer_if_permit = before, deferred
    facts.defer_if_reject = None
    if verdict is not None:
        session.failed(b"VRFY", verdict.reply)
    else:
        session.ok(b"VRFY", b"252 2.0.0 " + text)


__all__ = ["AddressClass", "mail_command", "rcpt_command", "vrfy_command"]
