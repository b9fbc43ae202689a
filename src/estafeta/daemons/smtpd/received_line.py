"""The Received header of smtpd: RFC 5321 section 4.4, folded as Postfix does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estafeta.daemons.smtpd import starttls
from estafeta.mail.address import address_literal, quote_address
from estafeta.mail.date import rfc5322_date
from estafeta.mail.text import to_bytes

if TYPE_CHECKING:
    from estafeta.daemons.smtpd.session import Session
    from estafeta.daemons.smtpd.transaction import Transaction


def received_header(session: Session, transaction: Transaction) -> bytes:
    """The trace header; without a queue id there is no ``id``."""
    facts = session.facts
    settings = session.service.settings
    protocol = session.protocol
    if transaction.smtputf8:
        protocol = "UTF8SMTP"
    secured = ""
    if session.tls is not None:
        protocol += "S"
        if settings.tls.received_header:
            secured = starttls.received_lines(session, session.tls)
    if facts.sasl_username and session.service.authentication is not None:
        protocol += "A"
        if session.service.authentication.adds_header:
            secured += f"\t(Authenticated sender: {facts.sasl_username})\r\n"
    for_clause = b";\r\n\t"
    if len(transaction.recipients) == 1:
        recipient = transaction.recipients[0]
        for_clause = b"\r\n\tfor <" + quote_address(recipient.address) + b">; "
    head = (
        f"Received: from {session.helo or facts.client_name} ({facts.client_name} [{address_literal(facts.client_address)}])\r\n"
        f"{secured}"
        f"\tby {settings.myhostname} ({settings.mail_name}) with {protocol}"
        + (f" id {transaction.queue_id}" if transaction.queue_id else "")
    )
    return to_bytes(head) + for_clause + rfc5322_date(transaction.arrived_at).encode() + b"\r\n"
