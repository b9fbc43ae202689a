"""The TLS levels dane and dane-only, as far as DNS says that there is nothing to check.

Source: RFC 7672 sections 2.1, 2.2; postconf(5) smtp_tls_security_level; log lines of Postfix 3.7. Without DNSSEC, or without TLSA
records behind it, dane is may, and dane-only waits. A server with TLSA records has to be compared with them, which is not built:
its mail waits, and never goes to a server that was not looked at.
"""

from __future__ import annotations

from dataclasses import replace

from estafeta.daemons.smtp.trouble import Peer, Trouble
from estafeta.dns.answer import Outcome
from estafeta.dns.resolver import Resolver
from estafeta.dns.wire import RRType
from estafeta.tls.policy import ClientPolicy

LOOKUPS_DISABLED = "configured with dnssec lookups disabled"
NO_RECORDS = "no TLSA records found"


async def effective_policy(resolver: Resolver, policy: ClientPolicy, peer: Peer) -> ClientPolicy | Trouble:
    """What ``policy``, of level dane or dane-only, comes to for one server, when names are asked for with DNSSEC."""
    found = await _tlsa(resolver, peer)
    if isinstance(found, Trouble):
        return found
    if found:
        text = "TLSA records found, but comparing certificates with them (DANE) is not implemented"
        return Trouble("4.7.5", text, throttle=True, mta=peer.host)
    if policy.level == "dane":
        return replace(policy, level="may")
    return Trouble("4.7.5", NO_RECORDS, throttle=True, mta=peer.host)


async def _tlsa(resolver: Resolver, peer: Peer) -> bool | Trouble:
    """Whether there are validated TLSA records for the server."""
    if not peer.port or peer.host == peer.address:
        return False
    rtype = RRType.AAAA if ":" in peer.address else RRType.A
    addresses = await resolver.query(peer.host, rtype, dnssec=True)
    if addresses.outcome is Outcome.FAIL:
        return Trouble("4.7.5", f"TLSA lookup error for {peer.host}:{peer.port}", throttle=True, mta=peer.host)
    if not addresses.secure:
        return False  # not validated: nothing below it could be
    for name in dict.fromkeys((addresses.name or peer.host, peer.host)):
        answer = await resolver.query(f"_{peer.port}._tcp.{name}", RRType.TLSA, dnssec=True)
        if answer.outcome in (Outcome.FAIL, Outcome.BROKEN, Outcome.INVALID):
            return Trouble("4.7.5", f"TLSA lookup error for {peer.host}:{peer.port}", throttle=True, mta=peer.host)
        if answer.outcome is Outcome.OK and answer.secure:
            return True
    return False
