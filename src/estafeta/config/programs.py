"""The daemon programs that a master.cf may name: Postfix's own, whether they exist here already or not.

Source: master(5), the manual pages of section 8. A name outside this set is a typing error, and the system does not start.
"""

from __future__ import annotations

KNOWN_PROGRAMS = frozenset(
    ("postscreen", "tlsproxy", "dnsblog", "pipe", "spawn", "qmqpd", "smtpd", "cleanup", "qmgr", "nqmgr", "oqmgr", "trivial-rewrite",
     "pickup", "smtp", "lmtp", "local", "virtual", "error", "retry", "discard", "bounce", "defer", "trace", "showq", "postlogd",
     "flush", "verify", "anvil", "tlsmgr", "proxymap", "scache")
)  # fmt: skip

CANNOT_JAIL = frozenset(("local", "virtual", "pipe", "spawn"))  # they work with users' files and programs
