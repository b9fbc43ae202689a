"""Whether a server that has said what it can do is fit for a message: its size, its addresses.

Source: RFC 1870, RFC 6531. Invariant: the answer is about the message, so that another server of the destination may still take it.
"""

from __future__ import annotations

from estafeta.daemons.smtp.content import WHOLE_BYTES, Readable
from estafeta.daemons.smtp.transaction import Transaction
from estafeta.daemons.smtp.trouble import Peer, Trouble, message_trouble
from estafeta.protocol.smtp_client import Features


def unfit(transaction: Transaction, peer: Peer, features: Features, content: Readable) -> Trouble | None:
    """What stands in the way of the transaction, None for nothing."""
    envelope = transaction.envelope
    limit = features.size_limit
    if limit and envelope.size_bytes > limit:
        text = f"message size {envelope.size_bytes} exceeds size limit {limit} of server {peer.name}"
        return message_trouble(peer, "5.3.4", text)
    if envelope.smtputf8 and "smtputf8" not in features and _needs_utf8(transaction, content):
        text = f"SMTPUTF8 is required, but was not offered by host {peer.name}"
        return message_trouble(peer, "5.6.7", text)
    return None


def _needs_utf8(transaction: Transaction, content: Readable) -> bool:
    """Whether an address or a header is not ASCII."""
    envelope = transaction.envelope
    if not envelope.sender.isascii() or any(not item.address.isascii() for item in envelope.recipients):
        return True
    try:
        reader, place, _ = transaction.source(content)
        head = reader.read(place, 0, WHOLE_BYTES)
    except OSError:
        return True
    return not head.partition(b"\r\n\r\n")[0].isascii()
