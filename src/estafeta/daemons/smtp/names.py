"""The lmtp_ name of each smtp_ parameter that the agent reads: one program, two sets of names.

Source: man 5 postconf. A parameter that is not here exists for SMTP alone.
"""

from __future__ import annotations

LMTP_NAMES = {
    "smtp_address_preference": "lmtp_address_preference",
    "smtp_balance_inet_protocols": "lmtp_balance_inet_protocols",
    "smtp_bind_address": "lmtp_bind_address",
    "smtp_bind_address6": "lmtp_bind_address6",
    "smtp_bind_address_enforce": "lmtp_bind_address_enforce",
    "smtp_connect_timeout": "lmtp_connect_timeout",
    "smtp_connection_cache_destinations": "lmtp_connection_cache_destinations",
    "smtp_connection_cache_on_demand": "lmtp_connection_cache_on_demand",
    "smtp_connection_cache_time_limit": "lmtp_connection_cache_time_limit",
    "smtp_connection_reuse_count_limit": "lmtp_connection_reuse_count_limit",
    "smtp_connection_reuse_time_limit": "lmtp_connection_reuse_time_limit",
    "smtp_data_done_timeout": "lmtp_data_done_timeout",
    "smtp_data_init_timeout": "lmtp_data_init_timeout",
    "smtp_data_xfer_timeout": "lmtp_data_xfer_timeout",
    "smtp_defer_if_no_mx_address_found": "lmtp_defer_if_no_mx_address_found",
    "smtp_discard_ehlo_keyword_address_maps": "lmtp_discard_lhlo_keyword_address_maps",
    "smtp_discard_ehlo_keywords": "lmtp_discard_lhlo_keywords",
    "smtp_dns_resolver_options": "lmtp_dns_resolver_options",
    "smtp_dns_support_level": "lmtp_dns_support_level",
    "smtp_enforce_tls": "lmtp_enforce_tls",
    "smtp_fallback_relay": "lmtp_fallback_relay",
    "smtp_helo_name": "lmtp_lhlo_name",
    "smtp_helo_timeout": "lmtp_lhlo_timeout",
    "smtp_host_lookup": "lmtp_host_lookup",
    "smtp_line_length_limit": "lmtp_line_length_limit",
    "smtp_mail_timeout": "lmtp_mail_timeout",
    "smtp_mx_address_limit": "lmtp_mx_address_limit",
    "smtp_mx_session_limit": "lmtp_mx_session_limit",
    "smtp_quit_timeout": "lmtp_quit_timeout",
    "smtp_quote_rfc821_envelope": "lmtp_quote_rfc821_envelope",
    "smtp_randomize_addresses": "lmtp_randomize_addresses",
    "smtp_rcpt_timeout": "lmtp_rcpt_timeout",
    "smtp_rset_timeout": "lmtp_rset_timeout",
    "smtp_sasl_auth_enable": "lmtp_sasl_auth_enable",
    "smtp_sasl_password_maps": "lmtp_sasl_password_maps",
    "smtp_send_dummy_mail_auth": "lmtp_send_dummy_mail_auth",
    "smtp_send_xforward_command": "lmtp_send_xforward_command",
    "smtp_sender_dependent_authentication": "lmtp_sender_dependent_authentication",
    "smtp_skip_5xx_greeting": "lmtp_skip_5xx_greeting",
    "smtp_skip_quit_response": "lmtp_skip_quit_response",
    "smtp_tcp_port": "lmtp_tcp_port",
    "smtp_tls_policy_maps": "lmtp_tls_policy_maps",
    "smtp_tls_security_level": "lmtp_tls_security_level",
    "smtp_tls_wrappermode": "lmtp_tls_wrappermode",
    "smtp_xforward_timeout": "lmtp_xforward_timeout",
}


def parameter_name(name: str, lmtp: bool) -> str:
    """The name of an ``smtp_`` parameter in the program that runs."""
    return LMTP_NAMES[name] if lmtp else name
