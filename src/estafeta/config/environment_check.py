"""What main.cf says against what the machine has: accounts, names, directories; and values with a syntax of their own.

Source: postconf(5) mail_owner, setgid_group, myhostname, inet_protocols, syslog_facility, compatibility_level, queue_directory.
Each problem here would show up later in some daemon's log, with mail waiting; found at start it costs nothing.
"""

from __future__ import annotations

import re

from estafeta.config.config import Config
from estafeta.config.errors import ConfigError, ConfigProblem
from estafeta.config.registry import parameters
from estafeta.config.values import split_words
from estafeta.system import privilege

_FACILITIES = frozenset(
    ("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp")
) | {f"local{number}" for number in range(8)}
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
# Lists of patterns, not of tables that something opens.
_NOT_TABLES = frozenset(("proxy_read_maps", "proxy_write_maps"))


def check_environment(config: Config) -> list[ConfigProblem]:
    """Problems of single parameters, whether set or default."""
    found: list[ConfigProblem] = []

    def add(name: str, text: str, severity: str = "fatal") -> None:
        setting = config.setting(name)
        found.append(ConfigProblem(severity, config.path, setting.line if setting else 0, f"parameter {name}: {text}"))

    for check in (_names, _accounts, _controls, _table_names, _networks):
        try:
            for name, text in check(config):
                add(name, text, "warning" if check is _networks else "fatal")
        except ConfigError:
            continue  # reported with its own line already
    try:
        config.get("smtputf8_enable")  # its default compares compatibility_level
    except ConfigError as error:
        if config.is_set("compatibility_level") and not config.is_set("smtputf8_enable"):
            add("compatibility_level", error.reason.partition(": ")[2] or error.reason)
    return found


def _names(config: Config) -> list[tuple[str, str]]:
    found = []
    host = config.get("myhostname")
    if host and not is_host_name(host):
        found.append(("myhostname", f'bad host name: "{host}" (specify a fully-qualified name such as mail.example.com)'))
    for word in config.words("inet_protocols"):
        if word.lower() not in ("all", "ipv4", "ipv6"):
            found.append(("inet_protocols", f'bad value: "{word}" (specify all, ipv4 or ipv6)'))
    facility = config.get("syslog_facility")
    if facility not in _FACILITIES:
        found.append(("syslog_facility", f"unknown syslog facility name: {facility}"))
    for name in ("queue_directory", "data_directory"):
        if not config.get(name).startswith("/"):
            found.append((name, f'"{config.get(name)}" is no absolute path'))
    return found


def _accounts(config: Config) -> list[tuple[str, str]]:
    found = []
    if privilege.is_root():
        if privilege.find_user(config.get("mail_owner")) is None:
            found.append(("mail_owner", f"unknown user: {config.get('mail_owner')}"))
        if privilege.find_group(config.get("setgid_group")) is None:
            found.append(("setgid_group", f"unknown group: {config.get('setgid_group')}"))
    return found


def _controls(config: Config) -> list[tuple[str, str]]:
    return [
        (name, "the value contains a control character")
        for name in config.set_names()
        if _CONTROL.search(config.raw_setting(name))
    ]


def _table_names(config: Config) -> list[tuple[str, str]]:
    found = []
    for name in config.set_names():
        if not name.endswith("_maps") or name in _NOT_TABLES or name not in parameters():
            continue
        for word in split_words(config.get(name)):
            if ":" not in word:
                found.append((name, f'expecting "type:name" form instead of "{word}"'))
    return found


def _networks(config: Config) -> list[tuple[str, str]]:
    """Patterns of mynetworks that smtpd will skip: their clients may not relay. Only warnings, as in Postfix."""
    import ipaddress

    found = []
    for word in config.words("mynetworks") if config.is_set("mynetworks") else ():
        pattern = word.lstrip("!")
        if pattern.startswith("/") or (":" in pattern and not pattern.startswith("[")):
            continue  # a file or a table
        if not re.fullmatch(r"[0-9.]+(/[0-9]+)?|\[[^]]+\](/[0-9]+)?", pattern):
            continue  # a name, or [ ] in a form of its own
        try:
            ipaddress.ip_network(pattern.replace("[", "").replace("]", ""))
        except ValueError as error:
            found.append(("mynetworks", f'pattern "{word}" is skipped: {error}'))
    return found


def is_host_name(name: str) -> bool:
    """True for labels of letters, digits, hyphens (not at an end) and underscores, 255 characters at most."""
    return len(name) <= 255 and all(_LABEL.match(label) for label in name.split("."))
