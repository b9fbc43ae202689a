"""What TLS a destination asks for: the lines of smtp_tls_policy_maps and smtp_tls_per_site as values.

Source: postconf(5) smtp_tls_policy_maps, smtp_tls_per_site, smtp_tls_verify_cert_match; TLS_README. No I/O. A line that is not
understood is a PolicyError, and the mail for that destination waits: it must not leave with less protection than was meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

LEVELS = ("none", "may", "encrypt", "dane", "dane-only", "half-dane", "fingerprint", "verify", "secure")
MANDATORY = frozenset(("encrypt", "dane-only", "half-dane", "fingerprint", "verify", "secure"))
AUTHENTICATED = frozenset(("fingerprint", "verify", "secure"))
DANE = frozenset(("dane", "dane-only", "half-dane"))
_PER_SITE = {"none": "none", "may": "may", "must_nopeermatch": "encrypt", "must": "verify"}
_ORDER = {level: number for number, level in enumerate(("none", "may", "encrypt", "verify"))}
_SEPARATOR = re.compile(r"[\s,]+")


class PolicyError(ValueError):
    """A line of a policy table that cannot be followed; the text is for the log."""


@dataclass(frozen=True, slots=True)
class ClientPolicy:
    """TLS for one destination. Empty fields: what main.cf says for the level; ``reuse`` None likewise."""

    level: str
    match: tuple[str, ...] = ()
    protocols: str = ""
    ciphers: str = ""
    exclude: str | None = None
    trust_anchors: tuple[str, ...] = ()
    server_name: str = ""
    reuse: bool | None = None

    @property
    def wanted(self) -> bool:
        """Whether to ask for TLS."""
        return self.level != "none"

    @property
    def mandatory(self) -> bool:
        """Whether mail does not go without."""
        return self.level in MANDATORY

    @property
    def authenticated(self) -> bool:
        """Whether the server has to prove who it is."""
        return self.level in AUTHENTICATED


def parse_policy(text: str) -> ClientPolicy:
    """One result of smtp_tls_policy_maps. Raises PolicyError."""
    words = [word for word in _SEPARATOR.split(text.strip()) if word]
    if not words or words[0].lower() not in LEVELS:
        raise PolicyError(f'invalid security level "{words[0] if words else ""}"')
    policy = ClientPolicy(words[0].lower())
    if policy.level == "none" and len(words) > 1:
        raise PolicyError(f'attribute "{words[1].partition("=")[0]}" is not allowed at level "none"')
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise PolicyError(f'attribute "{word}" has no value')
        policy = _with_attribute(policy, name.lower(), value)
    return policy


def _with_attribute(policy: ClientPolicy, name: str, value: str) -> ClientPolicy:
    level = policy.level
    if name == "protocols":
        return replace(policy, protocols=value)
    if name == "ciphers":
        return replace(policy, ciphers=value)
    if name == "exclude":
        return replace(policy, exclude=value)
    if name == "servername":
        return replace(policy, server_name=value)
    if name == "connection_reuse":
        if value.lower() not in ("yes", "no"):
            raise PolicyError(f'attribute "connection_reuse" has invalid value "{value}"')
        return replace(policy, reuse=value.lower() == "yes")
    if name == "match" and level in AUTHENTICATED:
        separator = "|" if level == "fingerprint" else ":"
        return replace(policy, match=policy.match + tuple(part for part in value.split(separator) if part))
    if name == "tafile" and level in ("verify", "secure"):
        return replace(policy, trust_anchors=(*policy.trust_anchors, value))
    if name in ("match", "tafile"):
        raise PolicyError(f'attribute "{name}" is not allowed at level "{level}"')
    raise PolicyError(f'invalid attribute name: "{name}"')


def policy_keys(destination: str) -> Iterator[str]:
    """The keys to look up, most specific first: parent domains for a bare domain alone."""
    yield destination
    if destination.startswith("[") or ":" in destination:
        return
    domain = destination
    while "." in domain:
        domain = domain.partition(".")[2]
        if domain:
            yield "." + domain


def per_site_level(default: str, host: str | None, nexthop: str | None) -> str:
    """smtp_tls_per_site: the words found for host and next hop, over what main.cf says. Raises PolicyError."""
    levels = []
    for word in (host, nexthop):
        if word is not None:
            level = _PER_SITE.get(word.strip().lower())
            if level is None:
                raise PolicyError(f'unknown TLS policy "{word}"')
            levels.append(level)
    if not levels:
        return default
    # MAY is the least specific word: NONE and the MUSTs win over it, and the more secure of the rest wins.
    specific = [level for level in levels if level != "may"]
    if specific:
        return max(specific, key=_ORDER.__getitem__)
    return default if _ORDER.get(default, 3) > 1 else "may"


def wanted_names(match: tuple[str, ...], nexthop: str, host: str) -> list[str]:
    """The names that a certificate may have, with the strategies nexthop, dot-nexthop and hostname put in."""
    found = []
    for word in match:
        lower = word.lower()
        if lower == "nexthop":
            found.append(nexthop.lower())
        elif lower == "dot-nexthop":
            found.append("." + nexthop.lower())
        elif lower == "hostname":
            found.append(host.lower())
        else:
            found.append(lower)
    return found


def bare_name(destination: str) -> str:
    """The host or domain of a next hop, without brackets and port."""
    if destination.startswith("["):
        return destination[1:].partition("]")[0].removeprefix("ipv6:")
    return destination.partition(":")[0]


def fingerprint_matches(wanted: tuple[str, ...], *fingerprints: str) -> bool:
    """Whether one of ``wanted`` is one of the fingerprints; colons and case do not count."""
    have = {_digits(item) for item in fingerprints if item}
    return any(_digits(item) in have for item in wanted)


def _digits(text: str) -> str:
    return text.replace(":", "").upper()
