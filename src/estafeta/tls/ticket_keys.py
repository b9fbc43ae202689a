"""Keys of session tickets that every worker of a service shares, so that a client resumes on whichever it meets.

Source: RFC 5077; postconf(5) smtpd_tls_session_cache_timeout. The secret is made when this module is imported, which the master
does before it forks; it is never written anywhere. Invariant: services with other certificates or other demands on their clients
get other keys: a session of one is no entrance to the other.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from estafeta.tls.library import TICKET_KEY_BYTES

_SECRET = os.urandom(32)


def ticket_keys(service: bytes, epoch: int) -> bytes:
    """The keys of ``service`` in the period number ``epoch``."""
    keys = b""
    for part in range(2):
        keys += hmac.digest(_SECRET, b"%d %d " % (part, epoch) + service, hashlib.sha512)
    return keys[:TICKET_KEY_BYTES]
