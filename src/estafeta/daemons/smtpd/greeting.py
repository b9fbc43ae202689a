"""The beginning of a conversation: who is the client, may it be here, and the 220.

Source: smtpd(8); postconf(5) smtpd_peername_lookup, smtpd_delay_reject, smtpd_tls_wrappermode. Invariant: with wrapper mode nothing
is said in clear; the limits for clients are asked before anything costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from estafeta.daemons.smtpd import starttls
from estafeta.daemons.smtpd.stages import check

if TYPE_CHECKING:
    from estafeta.daemons.smtpd.session import Session


async def greet(session: Session) -> None:
    """Find out about the client and greet it, or send it away."""
    service = session.service
    facts = session.facts
    if service.settings.peername_lookup:
        client = await service.client_name(facts.client_address)
        facts.client_name, session.reverse_name = client.name, client.reverse_name
        facts.reverse_name = client.reverse_name
        facts.name_status, facts.reverse_status = client.name_status, client.reverse_name_status
        if client.warning:
            session.warning(client.warning)
    session.where = f"{facts.client_name}[{facts.client_address}]"
    session.info(f"connect from {session.where}")
    refusal = await service.limits.connected(session)
    if refusal is not None:
        session.reply_now(refusal)
        session.close()
        return
    if service.settings.tls.wrapper and not await starttls.secure(session):
        return
    if service.other_clients:
        await service.other_clients.look_at(session)
    if not service.settings.delay_reject:
        session.refused = await check(session, "client", "CONNECT")
    if session.refused is not None:
        session.reply(session.refused.reply)
    else:
        session.reply(b"220 " + service.settings.banner)
