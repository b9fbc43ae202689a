"""The parameters of bounce(8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from estafeta.config.config import Config
from estafeta.config.errors import ConfigError
from estafeta.mail import bounce_template
from estafeta.mail.bounce_template import Template, TemplateError


@dataclass(frozen=True, slots=True)
class Settings:
    """See postconf(5)."""

    templates: dict[str, Template]
    texts: dict[str, str]  # their expanded texts
    myhostname: str
    myorigin: str
    mail_name: str
    notify_classes: frozenset[str]
    bounce_recipient: str
    double_bounce_recipient: str
    delay_recipient: str
    double_bounce_sender: str
    size_limit: int
    lifetime_s: float
    smtputf8: bool
    threaded: bool
    standard_from: bool
    long_queue_ids: bool


def read_settings(config: Config, warn: Callable[[str], None]) -> Settings:
    """Raises ConfigError for a bad value; a bad template file is a warning, as for Postfix, and the built-in text is used."""
    templates = bounce_template.DEFAULTS
    path = config.get("bounce_template_file")
    if path:
        try:
            with open(path, encoding="utf-8") as stream:
                templates = bounce_template.parse_templates(stream.read())
        except OSError as error:
            warn(f"open {path}: {error.strerror}; using the built-in bounce templates")
        except UnicodeDecodeError:
            warn(f"{path}: not UTF-8; using the built-in bounce templates")
        except TemplateError as error:
            warn(f"{path}, {error}; using the built-in bounce templates")

    def lookup(name: str) -> str:
        try:
            return config.lookup(name) or ""
        except ConfigError:
            return ""

    classes = frozenset(word.lower() for word in config.words("notify_classes"))
    texts = {name: bounce_template.expand(item.text, lookup, config.seconds) for name, item in templates.items()}
    return Settings(
        templates=templates,
        texts=texts,
        myhostname=config.get("myhostname"),
        myorigin=config.get("myorigin"),
        mail_name=config.get("mail_name"),
        notify_classes=classes | {"2bounce"} if "bounce" in classes else classes,
        bounce_recipient=config.get("bounce_notice_recipient"),
        double_bounce_recipient=config.get("2bounce_notice_recipient"),
        delay_recipient=config.get("delay_notice_recipient"),
        double_bounce_sender=config.get("double_bounce_sender"),
        size_limit=config.int("bounce_size_limit"),
        lifetime_s=config.seconds("maximal_queue_lifetime"),
        smtputf8=config.bool("smtputf8_enable"),
        threaded=config.bool("enable_threaded_bounces"),
        standard_from=config.get("header_from_format").lower() == "standard",
        long_queue_ids=config.bool("enable_long_queue_ids"),
    )
