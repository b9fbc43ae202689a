"""What smtpd's access tables want to be done with a message, as far as it is cleanup's to do.

Source: access(5) REDIRECT. Hold, filter and bcc come as parts of the envelope, PREPEND with the Received header, DISCARD as a flag.
"""

from __future__ import annotations

from estafeta.ipc.messages import Envelope, Recipient


def redirect(envelope: Envelope) -> None:
    """REDIRECT: one recipient instead of all of them, and no filter. It is not mapped again."""
    if not envelope.redirect:
        return
    last = envelope.recipients[-1]
    original = last.original or last.address
    envelope.recipients = [Recipient(envelope.redirect, original, last.notify, last.orcpt)]
    envelope.content_filter = ""
