"""The parameters of smtpd(8), read once when a worker starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from estafeta.config.config import Config
from estafeta.mail.text import to_bytes
from estafeta.tls.server import ServerTls, read_server_tls

EHLO_KEYWORDS = ("pipelining", "size", "vrfy", "etrn", "starttls", "enhancedstatuscodes", "8bitmime", "dsn", "smtputf8", "chunking")


@dataclass(frozen=True, slots=True)
class Settings:
    """See postconf(5) under ``smtpd_`` and the names below."""

    banner: bytes
    myhostname: str
    ehlo_lines: tuple[bytes, ...]
    ehlo_lines_tls: tuple[bytes, ...]
    mail_name: str
    message_size_limit: int
    line_length_limit: int
    timeout_s: float
    min_data_rate: float  # octets/s of content under smtpd_per_request_deadline; 0: each read starts smtpd_timeout anew
    recipient_limit: int
    soft_error_limit: int
    hard_error_limit: int
    junk_command_limit: int
    error_sleep_s: float
    helo_required: bool
    tls: ServerTls
    starttls: bool
    disable_vrfy: bool
    strict_rfc821: bool
    delay_reject: bool
    recipient_stages: tuple[str, str]  # in this order
    peername_lookup: bool
    forbidden_commands: frozenset[bytes]
    noop_commands: frozenset[bytes]
    bare_newline_reply: bytes  # to content with bare line feeds; empty: taken (the end of a message is strict in any case)
    reject_unlisted_recipient: bool
    content_filter: str
    delay_open: bool
    smtputf8: bool
    long_queue_ids: bool
    log_events: bool
    recipient_overshoot_limit: int
    chunking: bool
    dsn: bool
    allow_min_user: bool
    discard_ehlo_keywords: frozenset[str]


def _min_data_rate(config: Config) -> float:
    return float(max(1, config.int("smtpd_min_data_rate"))) if config.bool("smtpd_per_request_deadline") else 0.0


def under_stress(calm: Settings, config: Config) -> Settings:
    """The same with what main.cf says for ``stress = yes`` (STRESS_README): time limits and how many errors are borne."""
    stressed = config.with_overrides([("stress", "yes")])
    return replace(
        calm,
        timeout_s=stressed.seconds("smtpd_timeout"),
        min_data_rate=_min_data_rate(stressed),
        soft_error_limit=stressed.int("smtpd_soft_error_limit"),
        hard_error_limit=stressed.int("smtpd_hard_error_limit"),
        junk_command_limit=stressed.int("smtpd_junk_command_limit"),
        error_sleep_s=stressed.seconds("smtpd_error_sleep_time"),
    )


def read_settings(config: Config, warn: Callable[[str], None]) -> Settings:
    """Raises ConfigError for a bad value."""
    discard = {word.lower() for word in config.words("smtpd_discard_ehlo_keywords")}
    size_limit = config.size("message_size_limit")
    hostname = config.get("myhostname")
    smtputf8 = config.bool("smtputf8_enable")
    disable_vrfy = config.bool("disable_vrfy_command")
    texts = {
        "pipelining": "PIPELINING",
        "size": f"SIZE {size_limit}" if size_limit else "SIZE",
        "vrfy": "VRFY",
        "etrn": "ETRN",
        "starttls": "STARTTLS",
        "enhancedstatuscodes": "ENHANCEDSTATUSCODES",
        "8bitmime": "8BITMIME",
        "dsn": "DSN",
        "smtputf8": "SMTPUTF8",
        "chunking": "CHUNKING",
    }
    if not smtputf8:
        discard.add("smtputf8")
    if disable_vrfy:
        discard.add("vrfy")
    tls = read_server_tls(config, warn)
    starttls = tls.offered and not tls.wrapper and "starttls" not in discard
    if not starttls:
        discard.add("starttls")
    lines = tuple(text.encode() for word, text in texts.items() if word not in discard)
    relay_first = config.bool("smtpd_relay_before_recipient_restrictions")
    return Settings(
        banner=to_bytes(config.get("smtpd_banner")),
        myhostname=hostname,
        ehlo_lines=lines,
        ehlo_lines_tls=tuple(line for line in lines if line != b"STARTTLS"),
        mail_name=config.get("mail_name"),
        message_size_limit=size_limit,
        line_length_limit=config.int("line_length_limit"),
        timeout_s=config.seconds("smtpd_timeout"),
        min_data_rate=_min_data_rate(config),
        recipient_limit=config.int("smtpd_recipient_limit"),
        soft_error_limit=config.int("smtpd_soft_error_limit"),
        hard_error_limit=config.int("smtpd_hard_error_limit"),
        junk_command_limit=config.int("smtpd_junk_command_limit"),
        error_sleep_s=config.seconds("smtpd_error_sleep_time"),
        helo_required=config.bool("smtpd_helo_required"),
        tls=tls,
        starttls=starttls,
        disable_vrfy=disable_vrfy,
        strict_rfc821=config.bool("strict_rfc821_envelopes"),
        delay_reject=config.bool("smtpd_delay_reject"),
        recipient_stages=("relay", "recipient") if relay_first else ("recipient", "relay"),
        peername_lookup=config.bool("smtpd_peername_lookup"),
        forbidden_commands=frozenset(
            word.upper().encode() for word in config.words("smtpd_forbidden_commands") if ":" not in word
        ),
        noop_commands=frozenset(word.upper().encode() for word in config.words("smtpd_noop_commands")),
        bare_newline_reply=_bare_newline_reply(config),
        reject_unlisted_recipient=config.bool("smtpd_reject_unlisted_recipient"),
        content_filter=config.get("content_filter"),
        delay_open=config.bool("smtpd_delay_open_until_valid_rcpt"),
        smtputf8=smtputf8,
        long_queue_ids=config.bool("enable_long_queue_ids"),
        log_events=True,
        recipient_overshoot_limit=config.int("smtpd_recipient_overshoot_limit"),
        chunking="chunking" not in discard,
        dsn="dsn" not in discard,
        allow_min_user=config.bool("allow_min_user"),
        discard_ehlo_keywords=frozenset(discard),
    )


def _bare_newline_reply(config: Config) -> bytes:
    """smtpd_forbid_bare_newline: only "reject" refuses. Raises ConfigError."""
    name = "smtpd_forbid_bare_newline"
    value = config.get(name).lower()
    if value not in ("", "yes", "no", "normalize", "reject"):
        raise config.error(name, f'bad value "{value}": yes, normalize, reject or no is expected')
    if value != "reject":
        return b""
    code = config.int("smtpd_forbid_bare_newline_reject_code")
    return f"{code} 5.5.2 {config.get('myhostname')} Error: bare <LF> received".encode()
