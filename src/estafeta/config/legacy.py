"""Old parameter names, and what to write today.

Source: postconf(5), the notes of 2002-era and later renamings; DEPRECATION and COMPATIBILITY documents.
Old names keep working because the modern parameter's default refers to them (`virtual_alias_maps = $virtual_maps`), or
because the program still reads them; each gets one warning.
"""

from __future__ import annotations

EFFECTIVE_OLD_NAMES = frozenset(
    (
        "authorized_verp_clients",
        "fallback_relay",
        "lmtp_per_record_deadline",
        "postscreen_blacklist_action",
        "postscreen_dnsbl_ttl",
        "postscreen_dnsbl_whitelist_threshold",
        "postscreen_whitelist_interfaces",
        "smtp_per_record_deadline",
        "smtpd_client_connection_limit_exceptions",
        "smtpd_per_record_deadline",
        "tlsproxy_client_level",
        "tlsproxy_client_policy",
        "virtual_maps",
    )
)
"""Names that the default of a modern parameter refers to: setting them has an effect."""

MODERN_FORM: dict[str, str] = {
    "authorized_verp_clients": "smtpd_authorized_verp_clients",
    "disable_dns_lookups": "smtp_dns_support_level",
    "fallback_relay": "smtp_fallback_relay",
    "lmtp_cache_connection": "lmtp_connection_cache_on_demand",
    "lmtp_enforce_tls": "lmtp_tls_security_level = encrypt",
    "lmtp_per_record_deadline": "lmtp_per_request_deadline",
    "lmtp_tls_enforce_peername": "lmtp_tls_verify_cert_match",
    "lmtp_tls_per_site": "lmtp_tls_policy_maps",
    "lmtp_use_tls": "lmtp_tls_security_level = may",
    "maps_rbl_domains": "reject_rbl_client restrictions in smtpd_recipient_restrictions",
    "permit_mx_backup_networks": "relay_domains with relay_recipient_maps",
    "postscreen_blacklist_action": "postscreen_denylist_action",
    "postscreen_dnsbl_ttl": "postscreen_dnsbl_max_ttl",
    "postscreen_dnsbl_whitelist_threshold": "postscreen_dnsbl_allowlist_threshold",
    "postscreen_enforce_tls": "postscreen_tls_security_level = encrypt",
    "postscreen_use_tls": "postscreen_tls_security_level = may",
    "postscreen_whitelist_interfaces": "postscreen_allowlist_interfaces",
    "sender_based_routing": "sender_dependent_relayhost_maps",
    "smtp_enforce_tls": "smtp_tls_security_level = encrypt",
    "smtp_per_record_deadline": "smtp_per_request_deadline",
    "smtp_tls_cipherlist": "smtp_tls_mandatory_ciphers",
    "smtp_tls_enforce_peername": "smtp_tls_verify_cert_match",
    "smtp_tls_per_site": "smtp_tls_policy_maps",
    "smtp_use_tls": "smtp_tls_security_level = may",
    "smtpd_client_connection_limit_exceptions": "smtpd_client_event_limit_exceptions",
    "smtpd_enforce_tls": "smtpd_tls_security_level = encrypt",
    "smtpd_per_record_deadline": "smtpd_per_request_deadline",
    "smtpd_sasl_application_name": "smtpd_sasl_path",
    "smtpd_tls_cipherlist": "smtpd_tls_mandatory_ciphers",
    "smtpd_use_tls": "smtpd_tls_security_level = may",
    "tlsproxy_client_level": "tlsproxy_client_security_level",
    "tlsproxy_client_policy": "tlsproxy_client_policy_maps",
    "tlsproxy_enforce_tls": "tlsproxy_tls_security_level = encrypt",
    "tlsproxy_use_tls": "tlsproxy_tls_security_level = may",
    "virtual_maps": "virtual_alias_maps",
}
"""Old name -> what to use instead."""

MODERN_RESTRICTION: dict[str, str] = {
    "check_relay_domains": "permit_mynetworks, reject_unauth_destination",
    "permit_naked_ip_address": "permit_mynetworks",
    "reject_invalid_hostname": "reject_invalid_helo_hostname",
    "reject_maps_rbl": "reject_rbl_client domain.name",
    "reject_non_fqdn_hostname": "reject_non_fqdn_helo_hostname",
    "reject_unknown_address": "reject_unknown_sender_domain",
    "reject_unknown_client": "reject_unknown_client_hostname",
    "reject_unknown_hostname": "reject_unknown_helo_hostname",
}
"""Old restriction of smtpd_*_restrictions -> what to use instead."""


MODERN_SERVICE: dict[str, str] = {"fifo": "unix", "nqmgr": "qmgr"}
"""Old service type or program of master.cf -> what to use instead."""

MODERN_TABLE: dict[str, str] = {"sdbm": "hash", "dbm": "hash"}
"""Old table type -> what to use instead."""


def table_warning(spec: str) -> str | None:
    """The one-line warning for a table `type:name` of an old type, or None."""
    kind, colon, _ = spec.removeprefix("proxy:").partition(":")
    modern = MODERN_TABLE.get(kind) if colon else None
    return None if modern is None else f"table type {kind}: is an old form; use {modern}: instead"


def warning_for(name: str) -> str | None:
    """The one-line warning for an old parameter that is set, or None for a modern one."""
    modern = MODERN_FORM.get(name)
    return None if modern is None else f"parameter {name} is an old form; use {modern} instead"


def restriction_warning(word: str) -> str | None:
    """The one-line warning for an old restriction name, or None."""
    modern = MODERN_RESTRICTION.get(word)
    return None if modern is None else f'restriction "{word}" is an old form; use "{modern}" instead'
