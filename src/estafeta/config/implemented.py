"""Which parameters the programs really read.

A parameter that is set but not named here is reported by `postfix check` and at start-up: nothing is ignored in
silence. tests/unit/config/test_implemented.py compares this set with the parameter names that appear as string
literals in the source; add a name here in the change that makes a program read it.
"""

from __future__ import annotations

from estafeta.config.registry import transport_parameter

_NAMES = """
alias_database allow_percent_hack always_add_missing_headers always_bcc append_at_myorigin append_dot_mydomain
best_mx_transport bounce_queue_lifetime cleanup_service_name compatibility_level config_directory
confirm_delay_cleared content_filter data_directory default_database_type default_process_limit defer_code
defer_transports delay_warning_time disable_dns_lookups disable_vrfy_command double_bounce_sender
duplicate_filter_limit empty_address_recipient enable_long_queue_ids enable_original_recipient header_size_limit
hopcount_limit ignore_mx_lookup_error inet_interfaces inet_protocols invalid_hostname_reject_code line_length_limit
lmtp_assume_final local_header_rewrite_clients mail_name mail_owner mail_version maillog_file masquerade_domains
masquerade_exceptions master_service_disable max_idle maximal_backoff_time maximal_queue_lifetime
message_drop_headers message_size_limit minimal_backoff_time mydestination mydomain myhostname mynetworks
mynetworks_style myorigin non_fqdn_reject_code parent_domain_matches_subdomains process_id process_name
proxy_interfaces qmgr_message_active_limit queue_directory queue_minfree queue_run_delay receive_override_options
recipient_delimiter reject_code relay_domains relay_domains_reject_code remote_header_rewrite_domain
resolve_dequoted_address resolve_numeric_domain service_name service_throttle_time setgid_group
show_user_unknown_table_name smtp_always_send_ehlo smtp_never_send_ehlo smtpd_banner
smtpd_delay_open_until_valid_rcpt smtpd_delay_reject smtpd_discard_ehlo_keywords smtpd_error_sleep_time
smtpd_forbid_bare_newline smtpd_forbidden_commands smtpd_hard_error_limit smtpd_helo_required
smtpd_junk_command_limit smtpd_noop_commands smtpd_peername_lookup smtpd_recipient_limit
smtpd_recipient_overshoot_limit smtpd_reject_unlisted_recipient smtpd_restriction_classes smtpd_soft_error_limit
smtpd_timeout smtputf8_enable soft_bounce stress strict_rfc821_envelopes swap_bangpath syslog_facility syslog_name
transport_retry_time undisclosed_recipients_header unknown_local_recipient_reject_code
unknown_relay_recipient_reject_code unknown_virtual_alias_reject_code unknown_virtual_mailbox_reject_code
virtual_alias_address_length_limit virtual_alias_expansion_limit virtual_alias_recursion_limit
"""

IMPLEMENTED: frozenset[str] = frozenset(_NAMES.split())

IMPLEMENTED_SUFFIXES: frozenset[str] = frozenset(("_destination_rate_delay",))
"""Suffixes of a transport's parameters (`_destination_concurrency_limit` ...) that the programs read."""


def is_implemented(name: str) -> bool:
    """Whether setting `name` has an effect here. Names of the administrator's own are for the caller to tell apart."""
    if name in IMPLEMENTED:
        return True
    parameter = transport_parameter(name)
    return parameter is not None and any(name.endswith(suffix) for suffix in IMPLEMENTED_SUFFIXES)
