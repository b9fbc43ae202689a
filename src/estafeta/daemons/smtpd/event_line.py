"""The log lines about what a client wanted and did not simply get: ``reject:``, ``reject_warning:``, ``warn:``, ``hold:`` ...

Source: smtpd(8) as observed; log analysers read these lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from estafeta.daemons.smtpd.access import logged

if TYPE_CHECKING:
    from estafeta.daemons.smtpd.session import Session


def event_line(session: Session, stage: str, what: str, text: str) -> str:
    """``QUEUEID: what: STAGE from client: text; from=<> to=<> proto= helo=<>``, with what is known."""
    transaction = session.transaction
    queue_id = transaction.queue_id if transaction is not None and transaction.queue_id else "NOQUEUE"
    facts = session.facts
    tail = ""
    if facts.sender is not None:
        tail += f" from=<{logged(facts.sender)}>"
    if facts.recipient is not None:
        tail += f" to=<{logged(facts.recipient)}>"
    tail += f" proto={session.protocol}"
    if session.helo:
        tail += f" helo=<{session.helo}>"
    return f"{queue_id}: {what}: {stage} from {session.where}: {text};{tail}"
