"""Would the TLS of a service work? For `postfix check`, for the log at start, and for the master when files change.

Source: postconf(5) smtpd_tls_*, smtp_tls_*. Bad files are warnings: Postfix starts with them,
and so do we (STARTTLS then gets 454).
"""

from __future__ import annotations

from collections.abc import Callable

from estafeta.config.config import Config
from estafeta.config.errors import ConfigError, ConfigProblem
from estafeta.config.master_cf import load_master_cf
from estafeta.tls.client import ClientTls, client_files
from estafeta.tls.key_files import TlsSetupError
from estafeta.tls.server import open_server_context, read_server_tls, server_files


def _quiet(text: str) -> None:
    """The workers say it."""


def _own(program: str) -> Callable[[str], str]:
    return lambda name: "lmtp_" + name.removeprefix("smtp_") if program == "lmtp" else name


def tls_problem(program: str, config: Config) -> str | None:
    """Why TLS of a service would not work with the files as they are now; None if it would, or is not asked for."""
    try:
        if program == "smtpd":
            tls = read_server_tls(config, _quiet)
            if tls.offered:
                open_server_context(config, tls)
        elif program in ("smtp", "lmtp"):
            ClientTls(config, _own(program))
    except (TlsSetupError, ConfigError, OSError) as error:
        return str(error)
    return None


def tls_files(program: str, config: Config) -> list[str]:
    """The files that the TLS of a service is made of."""
    try:
        if program == "smtpd":
            return server_files(config) if read_server_tls(config, _quiet).offered else []
        return client_files(config, _own(program)) if program in ("smtp", "lmtp") else []
    except ConfigError:
        return []


def tls_problems(config: Config) -> list[ConfigProblem]:
    """A warning for each way in which the services of master.cf could not do TLS."""
    try:
        services = load_master_cf(config.directory, config.words("master_service_disable"))
    except ConfigError:
        return []  # reported with its own line already
    found: list[ConfigProblem] = []
    for service in services:
        program = service.command.rpartition("/")[2]
        own = config.with_overrides(service.overrides)
        try:
            asked = program == "smtpd" or _asks(own, program)
        except ConfigError:
            continue
        problem = tls_problem(program, own) if asked else None
        if problem is not None:
            found.append(ConfigProblem("warning", config.path, 0, f"{program}: TLS is not available: {problem}"))
    return list(dict.fromkeys(found))


def _asks(config: Config, program: str) -> bool:
    """Whether a client's settings say something about TLS."""
    own = _own(program)
    names = ("smtp_tls_security_level", "smtp_use_tls", "smtp_enforce_tls", "smtp_tls_policy_maps", "smtp_tls_per_site")
    return program in ("smtp", "lmtp") and any(config.is_set(own(name)) for name in names)
