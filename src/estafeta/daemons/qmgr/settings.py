"""The parameters of qmgr(8)."""

from __future__ import annotations

from dataclasses import dataclass

from estafeta.config.config import Config
from estafeta.config.errors import ConfigError
from estafeta.daemons.qmgr.feedback import BadFeedback, Feedback


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """What main.cf says of one transport."""

    concurrency_limit: int
    recipient_limit: int
    initial: int
    positive: Feedback
    negative: Feedback
    cohort_limit: int
    rate_delay_s: float


@dataclass(frozen=True, slots=True)
class Settings:
    """See postconf(5)."""

    active_limit: int
    queue_run_delay_s: float
    minimal_backoff_s: float
    maximal_backoff_s: float
    lifetime_s: float
    bounce_lifetime_s: float
    delay_warning_s: float
    transport_retry_s: float
    defer_transports: frozenset[str]
    confirm_delay_cleared: bool


def read_settings(config: Config) -> Settings:
    """Raises ConfigError."""
    return Settings(
        active_limit=config.int("qmgr_message_active_limit"),
        queue_run_delay_s=config.seconds("queue_run_delay"),
        minimal_backoff_s=config.seconds("minimal_backoff_time"),
        maximal_backoff_s=config.seconds("maximal_backoff_time"),
        lifetime_s=config.seconds("maximal_queue_lifetime"),
        bounce_lifetime_s=config.seconds("bounce_queue_lifetime"),
        delay_warning_s=config.seconds("delay_warning_time"),
        transport_retry_s=config.seconds("transport_retry_time"),
        defer_transports=frozenset(config.words("defer_transports")),
        confirm_delay_cleared=config.bool("confirm_delay_cleared"),
    )


def read_transport(config: Config, name: str) -> TransportSettings:
    """Raises ConfigError."""

    def feedback(suffix: str) -> Feedback:
        text = str(config.transport(name, suffix, "str"))
        try:
            return Feedback.parse(text)
        except BadFeedback:
            raise ConfigError(f"parameter {name}_{suffix}: bad feedback: {text}") from None

    def number(suffix: str) -> int:
        return int(config.transport(name, suffix))

    recipient_limit = number("destination_recipient_limit")
    return TransportSettings(
        concurrency_limit=number("destination_concurrency_limit"),
        recipient_limit=recipient_limit,
        initial=number("initial_destination_concurrency"),
        positive=feedback("destination_concurrency_positive_feedback"),
        negative=feedback("destination_concurrency_negative_feedback"),
        cohort_limit=number("destination_concurrency_failed_cohort_limit"),
        rate_delay_s=float(config.transport(name, "destination_rate_delay", "seconds")),
    )


def next_delay(arrived_at: float, now: float, settings: Settings) -> float:
    """Seconds until the next attempt: as long as the message is old, within the limits."""
    return min(max(now - arrived_at, settings.minimal_backoff_s), settings.maximal_backoff_s)
