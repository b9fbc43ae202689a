"""One stage of the conversation is put to its restriction list: what the list may look at, and what is kept for later.

Source: SMTPD_ACCESS_README; postconf(5) smtpd_delay_reject, defer_if_permit, defer_if_reject. What the lists mean is in access/.
Invariant: defer_if_permit of one transaction says nothing about the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from estafeta.daemons.smtpd.access import Verdict

if TYPE_CHECKING:
    from estafeta.daemons.smtpd.session import Session


async def check(session: Session, stage: str, command: str) -> Verdict | None:
    """Walk the restriction list of ``stage``; a refusal is logged."""
    access = session.service.access
    if not access.has(stage):
        return None
    facts = session.facts
    transaction = session.transaction
    if transaction is not None:
        facts.queue_id = transaction.queue_id
        facts.recipient_count = len(transaction.recipients)
        facts.size = transaction.size or transaction.declared_size
        if stage in ("data", "end_of_data"):  # about the whole message: the recipient is a fact only if there is but one
            facts.recipient = transaction.recipients[0].address if facts.recipient_count == 1 else None
            facts.defer_if_permit = facts.defer_if_reject = None
    if stage in ("sender", "etrn") and transaction is None:  # MAIL or ETRN begins anew
        facts.defer_if_permit, facts.defer_if_reject = facts.session_defer, None
    verdict = await access.check(
        stage, facts, lambda refused: session.log_reject(refused, command, warn=True), command,
        lambda what, text: session.log_action(command, what, text),
    )  # fmt: skip
    if verdict is None and stage in ("data", "end_of_data", "etrn"):
        verdict = facts.defer_if_permit
        facts.defer_if_permit = facts.session_defer
    elif stage in ("client", "helo") and not session.service.settings.delay_reject:
        facts.session_defer = facts.defer_if_permit
    if verdict is not None:
        session.log_reject(verdict, command)
    return verdict
