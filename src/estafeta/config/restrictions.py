"""The restriction lists of smtpd(8), as far as their names go: what is misspelt, not there yet, or leaves an open relay.

Source: postconf(5) smtpd_*_restrictions, SMTPD_ACCESS_README. Postfix finds a misspelt name when a client comes, and answers
451 from then on; here the system does not start with it.
"""

from __future__ import annotations

from collections.abc import Iterator

from estafeta.config.config import Config
from estafeta.config.errors import ConfigError
from estafeta.config.legacy import MODERN_RESTRICTION

STAGES = ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data", "etrn")
WITH_ARGUMENT = ("check_", "reject_rbl", "reject_rhsbl", "permit_dnswl", "permit_rhswl")
"""Beginnings of the names that an argument follows (but for check_relay_domains)."""

_THERE = """
reject_unverified_recipient reject_unverified_sender
check_ccert_access check_client_a_access check_client_access check_client_mx_access check_client_ns_access
check_etrn_access check_helo_a_access check_helo_access check_helo_mx_access check_helo_ns_access check_policy_service
check_recipient_a_access check_recipient_access check_recipient_mx_access check_recipient_ns_access
check_relay_domains check_reverse_client_hostname_a_access check_reverse_client_hostname_access
check_reverse_client_hostname_mx_access check_reverse_client_hostname_ns_access check_sasl_access
check_sender_a_access check_sender_access check_sender_mx_access check_sender_ns_access defer defer_if_permit
defer_if_reject defer_unauth_destination permit permit_auth_destination permit_dnswl_client permit_inet_interfaces
permit_mx_backup permit_mynetworks permit_naked_ip_address permit_rhswl_client permit_sasl_authenticated
permit_tls_all_clientcerts permit_tls_clientcerts reject reject_authenticated_sender_login_mismatch
reject_invalid_helo_hostname reject_known_sender_login_mismatch reject_maps_rbl reject_multi_recipient_bounce
reject_non_fqdn_helo_hostname reject_non_fqdn_recipient reject_non_fqdn_sender reject_plaintext_session
reject_rbl_client reject_rhsbl_client reject_rhsbl_helo reject_rhsbl_recipient reject_rhsbl_reverse_client
reject_rhsbl_sender reject_sender_login_mismatch reject_unauth_destination reject_unauth_pipelining
reject_unauthenticated_sender_login_mismatch reject_unknown_client_hostname reject_unknown_forward_client_hostname
reject_unknown_helo_hostname reject_unknown_recipient_domain reject_unknown_reverse_client_hostname
reject_unknown_sender_domain reject_unlisted_recipient reject_unlisted_sender
"""
_PLANNED = ""
THERE = frozenset(_THERE.split())
PLANNED = frozenset(_PLANNED.split())
"""Known to postconf(5) but not there yet: naming one is allowed, evaluating it is a temporary refusal."""

_RELAY_GUARDS = frozenset(
    ("reject_unauth_destination", "defer_unauth_destination", "reject", "defer", "defer_if_permit", "check_relay_domains")
)


def restriction_names(words: list[str], classes: frozenset[str]) -> Iterator[str]:
    """The restrictions of a list, in order and in lower case, without arguments and bare tables; classes by their name."""
    position = 0
    while position < len(words):
        name = words[position]
        lower = name.lower()
        position += 1
        if name in classes:
            yield name
        elif ":" in name or lower == "warn_if_reject":
            continue
        else:
            if lower == "sleep" or (lower.startswith(WITH_ARGUMENT) and lower != "check_relay_domains"):
                position += 1
            yield lower


def restriction_problems(config: Config, *, is_smtpd: bool = True) -> list[tuple[str, str, str]]:
    """(parameter, severity, text) for everything that is wrong in the lists. Raises ConfigError for a bad value."""
    found: list[tuple[str, str, str]] = []
    classes = frozenset(config.words("smtpd_restriction_classes"))
    lists = [f"smtpd_{stage}_restrictions" for stage in STAGES]
    for parameter in (*lists, *(name for name in sorted(classes) if config.is_set(name))):
        for name in restriction_names(config.words(parameter), classes):
            if name in PLANNED:
                text = f"restriction {name} is not implemented: mail that gets there is refused with 451"
                found.append((parameter, "warning", text))
            elif name not in THERE and name not in MODERN_RESTRICTION and name not in classes and name != "sleep":
                found.append((parameter, "fatal", f'unknown smtpd restriction: "{name}"'))
    if is_smtpd and not _guards_relaying(config, classes):
        text = (
            "in parameter smtpd_relay_restrictions or smtpd_recipient_restrictions, specify at least one working instance of: "
            "reject_unauth_destination, defer_unauth_destination, reject, defer, defer_if_permit or check_relay_domains"
        )
        found.append(("smtpd_relay_restrictions", "fatal", text))
    return found


def _guards_relaying(config: Config, classes: frozenset[str]) -> bool:
    names = list(_all_names(config, "smtpd_relay_restrictions", classes))
    return any(name in _RELAY_GUARDS for name in (*names, *_all_names(config, "smtpd_recipient_restrictions", classes)))


def _all_names(config: Config, parameter: str, classes: frozenset[str], depth: int = 0) -> Iterator[str]:
    """The restrictions of a list and of the classes that it names."""
    for name in restriction_names(config.words(parameter), classes):
        if name in classes and config.is_set(name):
            if depth > 20:
                raise ConfigError(f"smtpd_restriction_classes: {name} names itself", config.path)
            yield from _all_names(config, name, classes, depth + 1)
        else:
            yield name
