"""Content filters and pipe services, looked at before they run: attributes that make no command, filters that feed themselves.

Source: pipe(8), FILTER_README. A filter hands mail back by sendmail(1) (to pickup) or by SMTP (to an smtpd of ours). If the mail
that comes that way is filtered again, it goes round until its hop count ends it.
"""

from __future__ import annotations

import os
import re

from estafeta.config.config import Config
from estafeta.config.errors import ConfigError, ConfigProblem
from estafeta.config.master_cf import MasterService
from estafeta.config.pipe_attributes import BadAttributes, parse_pipe_attributes

_LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1"))
_SMTP_TARGET = re.compile(r"\[?(?:inet:)?\[?([^\]]*?)\]?:(\d+)$")


def filter_problems(services: list[MasterService], path: str, config: Config) -> list[ConfigProblem]:
    """What is wrong with pipe services (fatal) and content filters (warnings)."""
    found: list[ConfigProblem] = []
    by_name = {service.name: service for service in services if service.type != "inet"}
    for service in services:
        if os.path.basename(service.command) == "pipe":
            try:
                parse_pipe_attributes(service.args)
            except BadAttributes as error:
                text = f"service {service.name}/{service.type}: {error}"
                found.append(ConfigProblem("fatal", path, service.line, text))
    entrances = [(service, _filter_of(service, config)) for service in services if _takes_mail(service)]
    for service, value in entrances:
        if not value:
            continue
        transport, _, target = value.partition(":")
        agent = by_name.get(transport)
        label = f"service {service.name}/{service.type}: content_filter={value}"
        if agent is None:
            found.append(ConfigProblem("warning", path, service.line, f"{label}: master.cf has no service {transport}"))
        elif _own_port(target, entrances, value):
            text = f"{label}: the filter feeds itself: that port is ours, and what comes there is filtered again"
            found.append(ConfigProblem("warning", path, service.line, text))
    pickup = next((value for service, value in entrances if os.path.basename(service.command) == "pickup"), "")
    agent = by_name.get(pickup.partition(":")[0])
    if pickup and agent is not None and os.path.basename(agent.command) == "pipe":
        text = (
            f"content_filter={pickup} is applied to mail from pickup, too: a filter that hands mail back with sendmail(1) feeds "
            "itself (put -o content_filter= on the pickup line)"
        )
        found.append(ConfigProblem("warning", path, _line_of(services, "pickup"), text))
    return found


def _takes_mail(service: MasterService) -> bool:
    return os.path.basename(service.command) in ("smtpd", "pickup")


def _filter_of(service: MasterService, config: Config) -> str:
    try:
        return config.with_overrides([("service_name", service.name), *service.overrides]).get("content_filter").strip()
    except ConfigError:
        return ""  # reported with its own line already


def _own_port(target: str, entrances: list[tuple[MasterService, str]], value: str) -> bool:
    match = _SMTP_TARGET.match(target)
    if match is None or match[1] not in _LOOPBACK:
        return False
    for service, its in entrances:
        if service.type != "inet" or its != value:
            continue
        host, port = service.host_port
        if port == match[2] and (not host or host in _LOOPBACK):
            return True
    return False


def _line_of(services: list[MasterService], command: str) -> int:
    return next((service.line for service in services if os.path.basename(service.command) == command), 0)
