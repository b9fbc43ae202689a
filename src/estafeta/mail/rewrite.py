"""Putting an address into standard form: a pure function of the address and a few parameters.

Source: trivial-rewrite(8) STANDARD FORM, postconf(5) swap_bangpath, allow_percent_hack, append_at_myorigin,
append_dot_mydomain, remote_header_rewrite_domain. It needs no table, so cleanup calls it without asking a process (ADR 0003);
trivial-rewrite serves it to everybody else.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RewriteRules:
    """The parameters, in internal form (bytes)."""

    myorigin: bytes
    mydomain: bytes
    swap_bangpath: bool
    allow_percent_hack: bool
    append_at_myorigin: bool
    append_dot_mydomain: bool
    remote_domain: bytes = b""  # remote_header_rewrite_domain


def to_standard_form(rules: RewriteRules, address: bytes, *, remote: bool = False) -> bytes:
    """``address`` (internal form) completed; the empty address stays empty.

    ``remote``: the address came in a header from a client that is not local: it is completed with
    remote_header_rewrite_domain, and left alone when that is empty.
    """
    if not address:
        return address
    if remote and not rules.remote_domain:
        return address
    local, at, domain = address.rpartition(b"@")
    if not at:
        local, domain = address, b""
        if rules.swap_bangpath and b"!" in local:
            site, _, rest = local.partition(b"!")
            local, domain, at = rest, site, b"@"
        elif rules.allow_percent_hack and b"%" in local:
            local, _, domain = local.rpartition(b"%")
            at = b"@"
    origin = rules.remote_domain if remote else rules.myorigin
    if not at or not domain:
        if not (remote or rules.append_at_myorigin):
            return address
        return local + b"@" + origin
    if domain.endswith(b"."):
        return local + b"@" + domain[:-1]
    if b"." not in domain and not domain.startswith(b"["):
        if remote:
            return local + b"@" + domain + b"." + rules.remote_domain
        if rules.append_dot_mydomain:
            return local + b"@" + domain + b"." + rules.mydomain
    return address if at and address.endswith(b"@" + domain) else local + b"@" + domain
