"""The address rewriting rules of a configuration; see mail.rewrite."""

from __future__ import annotations

from estafeta.config.config import Config
from estafeta.mail.rewrite import RewriteRules
from estafeta.mail.text import to_bytes


def rewrite_rules(config: Config) -> RewriteRules:
    """Built once when a service starts."""
    return RewriteRules(
        myorigin=to_bytes(config.get("myorigin")),
        mydomain=to_bytes(config.get("mydomain")),
        swap_bangpath=config.bool("swap_bangpath"),
        allow_percent_hack=config.bool("allow_percent_hack"),
        append_at_myorigin=config.bool("append_at_myorigin"),
        append_dot_mydomain=config.bool("append_dot_mydomain"),
        remote_domain=to_bytes(config.get("remote_header_rewrite_domain")),
    )
