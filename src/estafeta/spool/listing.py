"""What is in the queue, for showq and for postqueue when nothing runs.

Each queue by its own: maildrop (not yet in the queue proper), active and incoming (told apart by what the queue manager says is
active), deferred, hold.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from estafeta.mail import maildrop
from estafeta.mail.queue_listing import Listed
from estafeta.mail.text import to_text
from estafeta.spool import maildrop as drop
from estafeta.spool import scan


def list_messages(queue_directory: str, active: Collection[str], empty_address: str) -> Iterator[Listed]:
    """Every message, as well as can be told while the queue moves; ``empty_address`` is shown for the null address."""
    yield from _maildrop(queue_directory, empty_address)
    for queue in ("incoming", "deferred", "hold"):
        for queued in scan.list_queue(queue_directory, queue):
            yield listed(queued, "active" if queued.envelope.queue_id in active else queue, empty_address)


def listed(queued: scan.Queued, queue_name: str, empty_address: str) -> Listed:
    """One queued message as it is listed."""
    envelope = queued.envelope
    recipients = [
        (to_text(recipient.address) or empty_address, one_line(recipient.reason))
        for index, recipient in enumerate(envelope.recipients)
        if index not in queued.done
    ]
    size = envelope.size or queued.place.content_length
    sender = to_text(envelope.sender) or empty_address
    return Listed(queue_name, envelope.queue_id, int(envelope.arrived_at), size, sender, recipients)


def one_line(text: str) -> str:
    """``text`` without anything that would break a line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _maildrop(queue_directory: str, empty_address: str) -> Iterator[Listed]:
    for name in drop.names(queue_directory):
        try:
            found = drop.read(queue_directory, name)
        except (OSError, maildrop.MaildropError):
            continue
        size = len(found.content) - found.content.count(b"\r\n")
        recipients = [(to_text(address) or empty_address, "") for address in found.recipients]
        sender = to_text(found.sender) or empty_address
        yield Listed("maildrop", name, int(found.arrived_at), size, sender, recipients)
