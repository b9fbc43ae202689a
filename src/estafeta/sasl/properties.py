"""The mechanisms by name and what they are good for: smtpd_sasl_security_options and its kind.

Source: SASL_README, postconf(5) smtp_sasl_security_options; properties as those of Cyrus SASL's mechanisms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NOPLAINTEXT = "noplaintext"
NOACTIVE = "noactive"
NODICTIONARY = "nodictionary"
NOANONYMOUS = "noanonymous"
MUTUAL_AUTH = "mutual_auth"
FORWARD_SECRECY = "forward_secrecy"
OPTIONS = frozenset((NOPLAINTEXT, NOACTIVE, NODICTIONARY, NOANONYMOUS, MUTUAL_AUTH, FORWARD_SECRECY))


@dataclass(frozen=True, slots=True)
class Mechanism:
    """A name, and which of the options it satisfies."""

    name: str
    satisfies: frozenset[str]

    def fits(self, options: frozenset[str]) -> bool:
        """Whether it may be used under these security options."""
        return options <= self.satisfies


MECHANISMS = {
    mechanism.name: mechanism
    for mechanism in (
        Mechanism("SCRAM-SHA-256", frozenset((NOPLAINTEXT, NOACTIVE, NOANONYMOUS, MUTUAL_AUTH))),
        Mechanism("SCRAM-SHA-1", frozenset((NOPLAINTEXT, NOACTIVE, NOANONYMOUS, MUTUAL_AUTH))),
        Mechanism("DIGEST-MD5", frozenset((NOPLAINTEXT, NOANONYMOUS, MUTUAL_AUTH))),
        Mechanism("CRAM-MD5", frozenset((NOPLAINTEXT, NOANONYMOUS))),
        Mechanism("PLAIN", frozenset((NOANONYMOUS,))),
        Mechanism("LOGIN", frozenset((NOANONYMOUS,))),
    )
}
"""Ours, the best first."""


def read_options(words: Iterable[str]) -> tuple[frozenset[str], list[str]]:
    """(options, words that are none)."""
    lower = [word.lower() for word in words]
    return frozenset(word for word in lower if word in OPTIONS), [word for word in lower if word not in OPTIONS]
