"""The parameters of smtp(8), or of lmtp(8) under their lmtp_ names, read once when a worker starts.

Source: man 5 postconf, smtp_* and lmtp_*. Invariant: every time limit is in seconds, 0 is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from estafeta.config.config import Config
from estafeta.daemons.smtp.names import parameter_name
from estafeta.dns.mx import RouteOptions
from estafeta.mail.text import to_bytes
from estafeta.protocol.smtp_client import ClientOptions
from estafeta.protocol.smtp_client_phase import Phase
from estafeta.service.own_addresses import own_addresses
from estafeta.tls.policy import LEVELS

_Namer = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Settings:
    """See postconf(5) under ``smtp_`` and the names below."""

    lmtp: bool
    myhostname: str
    port: str
    client: ClientOptions
    route: RouteOptions
    lookup_mx: bool
    timeouts: dict[Phase, float]
    connect_timeout_s: float
    fallback_relay: tuple[str, ...]
    best_mx_transport: str
    always_send_ehlo: bool
    skip_5xx_greeting: bool
    skip_quit_response: bool
    mx_session_limit: int
    line_length_limit: int
    mime_conversion: bool
    bind_address: str
    bind_address6: str
    bind_address_enforce: bool
    dummy_mail_auth: bool
    sender_dependent_login: bool  # a session is of one sender's: none is kept
    xforward: bool
    cache_destinations: str
    cache_on_demand: bool
    cache_time_limit_s: float
    reuse_time_limit_s: float
    reuse_count_limit: int
    assume_final: bool
    tls_level: str
    tls_wrapper: bool
    tls_note_offer: bool
    minimal_backoff_s: float
    soft_bounce: bool


def read_settings(config: Config, lmtp: bool) -> Settings:
    """Raises ConfigError for a bad value."""

    def own(name: str) -> str:
        return parameter_name(name, lmtp)

    def seconds(name: str) -> float:
        return config.seconds(own(name))

    level = config.get(own("smtp_dns_support_level")).strip().lower()
    if not level:
        level = "disabled" if config.bool("disable_dns_lookups") else "enabled"
    helo = seconds("smtp_helo_timeout")
    limits = {
        Phase.GREETING: helo,
        Phase.EHLO: helo,
        Phase.HELO: helo,
        Phase.LHLO: helo,
        Phase.AUTH: helo,
        Phase.STARTTLS: seconds("smtp_starttls_timeout"),
        Phase.XFORWARD: seconds("smtp_xforward_timeout"),
        Phase.MAIL: seconds("smtp_mail_timeout"),
        Phase.RCPT: seconds("smtp_rcpt_timeout"),
        Phase.DATA: seconds("smtp_data_init_timeout"),
        Phase.CONTENT: seconds("smtp_data_xfer_timeout"),
        Phase.DOT: seconds("smtp_data_done_timeout"),
        Phase.RSET: seconds("smtp_rset_timeout"),
        Phase.QUIT: seconds("smtp_quit_timeout"),
    }
    tls_level = _tls_level(config, own)
    bind4, bind6 = _bind_addresses(config, own)
    return Settings(
        lmtp=lmtp,
        myhostname=config.get("myhostname"),
        port=config.get(own("smtp_tcp_port")),
        client=ClientOptions(
            helo_name=to_bytes(config.get(own("smtp_helo_name"))),
            lmtp=lmtp,
            never_send_ehlo=not lmtp and config.bool("smtp_never_send_ehlo"),
            quote_addresses=config.bool(own("smtp_quote_rfc821_envelope")),
            discard_keywords=frozenset(word.lower() for word in config.words(own("smtp_discard_ehlo_keywords"))),
        ),
        route=_route_options(config, own, level),
        lookup_mx=not lmtp and level != "disabled",
        timeouts=limits,
        connect_timeout_s=seconds("smtp_connect_timeout"),
        fallback_relay=tuple(config.words(own("smtp_fallback_relay"))),
        best_mx_transport="" if lmtp else config.get("best_mx_transport"),
        always_send_ehlo=lmtp or config.bool("smtp_always_send_ehlo"),
        skip_5xx_greeting=config.bool(own("smtp_skip_5xx_greeting")),
        skip_quit_response=config.bool(own("smtp_skip_quit_response")),
        mx_session_limit=config.int(own("smtp_mx_session_limit")),
        line_length_limit=config.int(own("smtp_line_length_limit")),
        mime_conversion=not config.bool("disable_mime_output_conversion"),
        bind_address=bind4,
        bind_address6=bind6,
        bind_address_enforce=config.bool(own("smtp_bind_address_enforce")),
        dummy_mail_auth=config.bool(own("smtp_send_dummy_mail_auth")),
        sender_dependent_login=config.bool(own("smtp_sasl_auth_enable"))
        and config.bool(own("smtp_sender_dependent_authentication")),
        xforward=config.bool(own("smtp_send_xforward_command")),
        cache_destinations=config.get(own("smtp_connection_cache_destinations")),
        cache_on_demand=config.bool(own("smtp_connection_cache_on_demand")),
        cache_time_limit_s=seconds("smtp_connection_cache_time_limit"),
        reuse_time_limit_s=seconds("smtp_connection_reuse_time_limit"),
        reuse_count_limit=config.int(own("smtp_connection_reuse_count_limit")),
        assume_final=lmtp and config.bool("lmtp_assume_final"),
        tls_level=tls_level,
        tls_wrapper=config.bool(own("smtp_tls_wrappermode")),
        tls_note_offer=config.bool(own("smtp_tls_note_starttls_offer")),
        minimal_backoff_s=config.seconds("minimal_backoff_time"),
        soft_bounce=config.bool("soft_bounce"),
    )


def _tls_level(config: Config, own: _Namer) -> str:
    """smtp_tls_security_level, or what its ancestors say. Raises ConfigError."""
    name = own("smtp_tls_security_level")
    level = config.get(name).strip().lower()
    if level in LEVELS:
        return level
    if level:
        raise config.error(name, f'Invalid TLS level "{level}" (specify one of {", ".join(LEVELS)})')
    if config.bool(own("smtp_enforce_tls")):
        return "verify" if config.bool(own("smtp_tls_enforce_peername")) else "encrypt"
    return "may" if config.bool(own("smtp_use_tls")) else "none"


def _route_options(config: Config, own: _Namer, level: str) -> RouteOptions:
    protocols = {word.lower() for word in config.words("inet_protocols")} or {"all"}
    families = tuple(name for name in ("ipv4", "ipv6") if name in protocols or "all" in protocols)
    lookup = tuple(word.lower() for word in config.words(own("smtp_host_lookup")))
    resolver_words = {word.lower() for word in config.words(own("smtp_dns_resolver_options"))}
    return RouteOptions(
        families=families,
        host_lookup=("native",) if level == "disabled" else lookup,
        address_preference=config.get(own("smtp_address_preference")).lower(),
        randomize_addresses=config.bool(own("smtp_randomize_addresses")),
        mx_address_limit=config.int(own("smtp_mx_address_limit")),
        balance_inet_protocols=config.bool(own("smtp_balance_inet_protocols")),
        ignore_mx_lookup_error=config.bool("ignore_mx_lookup_error"),
        defer_if_no_mx_address_found=config.bool(own("smtp_defer_if_no_mx_address_found")),
        dnssec=level == "dnssec",
        append_default="res_defnames" in resolver_words,
        search="res_dnsrch" in resolver_words,
        own_addresses=own_addresses(config),
    )


def _bind_addresses(config: Config, own: _Namer) -> tuple[str, str]:
    """The source addresses; with a single address in inet_interfaces, mail leaves from that one."""
    bind4 = config.get(own("smtp_bind_address")).strip()
    bind6 = config.get(own("smtp_bind_address6")).strip().removeprefix("[").removesuffix("]")
    words = {word.lower() for word in config.words("inet_interfaces")}
    if not words & {"all", "loopback-only"}:
        found = sorted(own_addresses(config) - set(config.words("proxy_interfaces")))
        v4 = [address for address in found if ":" not in address]
        v6 = [address for address in found if ":" in address]
        if not bind4 and len(v4) == 1 and not v4[0].startswith("127."):
            bind4 = v4[0]
        if not bind6 and len(v6) == 1 and v6[0] != "::1":
            bind6 = v6[0]
    return bind4, bind6
