"""The command line of one delivery: macros, quoting, case.

Source: pipe(8). Values are what a stranger wrote: they become whole arguments of a program, never words for a shell.
"""

from __future__ import annotations

from estafeta.config.pipe_attributes import PER_RECIPIENT, PipeAttributes, Template
from estafeta.delivery.mailbox import original_of
from estafeta.ipc.messages import Envelope, Recipient
from estafeta.mail.address import address_literal, quote_address, split_address, split_extension
from estafeta.mail.text import to_text


def _folded(address: bytes, flags: frozenset[str]) -> bytes:
    """The h, u and q flags on a whole address."""
    if "h" in flags or "u" in flags:
        local, domain = split_address(address)
        if "u" in flags:
            local = local.lower()
        if domain is not None and "h" in flags:
            domain = domain.lower()
        address = local if domain is None else local + b"@" + domain
    return quote_address(address) if "q" in flags else address


def sender_of(attributes: PipeAttributes, envelope: Envelope) -> bytes:
    """The sender, or what stands for the empty one (not yet quoted)."""
    return envelope.sender or attributes.null_sender.encode("utf-8", "surrogateescape")


def _of_message(attributes: PipeAttributes, envelope: Envelope, nexthop: str) -> dict[str, str]:
    sender = sender_of(attributes, envelope)
    if "q" in attributes.flags and sender:
        sender = quote_address(sender)
    return {
        "client_address": address_literal(envelope.client_address),
        "client_helo": envelope.helo_name,
        "client_hostname": envelope.client_name,
        "client_port": envelope.client_port,
        "client_protocol": envelope.protocol,
        "envid": to_text(envelope.envid),
        "nexthop": nexthop.lower() if "h" in attributes.flags else nexthop,
        "queue_id": envelope.queue_id,
        "sasl_method": envelope.sasl_method,
        "sasl_sender": envelope.sasl_sender,
        "sasl_username": envelope.sasl_username,
        "sender": to_text(sender),
        "size": str(envelope.size),
    }


def _of_recipient(attributes: PipeAttributes, recipient: Recipient, delimiters: bytes) -> dict[str, str]:
    flags = attributes.flags
    local, domain = split_address(recipient.address)
    if "u" in flags:
        local = local.lower()
    if domain is not None and "h" in flags:
        domain = domain.lower()
    user, extension = split_extension(local, delimiters, True)
    return {
        "domain": to_text(domain or b""),
        "extension": to_text(extension or b""),
        "mailbox": to_text(local),
        "original_recipient": to_text(_folded(original_of(recipient), flags)),
        "recipient": to_text(_folded(recipient.address, flags)),
        "user": to_text(user),
    }


def _filled(parts: Template, values: dict[str, str]) -> str:
    return "".join(part if isinstance(part, str) else values[part[0]] for part in parts)


def command_line(
    attributes: PipeAttributes, envelope: Envelope, recipients: list[Recipient], nexthop: str, delimiters: str
) -> tuple[str, ...]:
    """The arguments; one that names a recipient comes once for each of them."""
    common = _of_message(attributes, envelope, nexthop)
    each = [common | _of_recipient(attributes, recipient, delimiters.encode()) for recipient in recipients]
    argv: list[str] = []
    for parts in attributes.argv:
        if any(not isinstance(part, str) and part[0] in PER_RECIPIENT for part in parts):
            argv += [_filled(parts, values) for values in each]
        else:
            argv.append(_filled(parts, common))
    return tuple(argument.replace("\0", "") for argument in argv)
