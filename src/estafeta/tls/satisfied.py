"""Parameters whose purpose is met without reading them: setting one changes nothing, and nothing is missing.

Sessions are resumed by tickets and from the memory of each worker, not from a database of tlsmgr(8); random numbers come from the
kernel; export-grade keys do not exist any more.
"""

from __future__ import annotations

SATISFIED = frozenset(
    (
        "smtpd_tls_session_cache_database", "smtp_tls_session_cache_database", "lmtp_tls_session_cache_database",
        "smtpd_tls_always_issue_session_ids", "smtpd_tls_dh512_param_file", "tls_session_ticket_cipher",
        "tls_fast_shutdown_enable", "tls_random_source", "tls_random_bytes", "tls_daemon_random_bytes",
        "tls_random_exchange_name", "tls_random_prng_update_period", "tls_random_reseed_period", "tlsmgr_service_name",
    )
)  # fmt: skip
