"""The files behind AUTH of a service, for the master, which has workers replaced when they change: a worker that gave its
privileges up cannot read a sasldb of root's again.
"""

from __future__ import annotations

from estafeta.config.config import Config
from estafeta.config.errors import ConfigError, ConfigProblem
from estafeta.config.master_cf import load_master_cf
from estafeta.sasl import app_conf
from estafeta.sasl.sasldb import Sasldb


def sasl_files(program: str, config: Config) -> list[str]:
    """smtpd.conf and sasldb, whether they are there already or not."""
    try:
        if program != "smtpd" or not config.bool("smtpd_sasl_auth_enable") or config.get("smtpd_sasl_type") != "cyrus":
            return []
        conf = _conf(config)
    except (ConfigError, OSError):
        return []
    return [path for path in (conf.path, conf.sasldb_path if app_conf.SASLDB in conf.methods else "") if path]


def sasl_problem(program: str, config: Config) -> str | None:
    """Why accounts could not be read now; None if they can, or there are none to be read."""
    if not sasl_files(program, config):
        return None
    try:
        conf = _conf(config)
    except (ConfigError, OSError) as error:
        return str(error)
    if app_conf.SASLDB not in conf.methods:
        return None
    database = Sasldb(conf.sasldb_path)
    problem = database.problem
    database.close()
    return problem or None


def sasl_problems(config: Config) -> list[ConfigProblem]:
    """A warning for each way in which the smtpd services of master.cf could check no password."""
    try:
        services = load_master_cf(config.directory, config.words("master_service_disable"))
    except ConfigError:
        return []  # reported with its own line already
    found: list[ConfigProblem] = []
    for service in services:
        own = config.with_overrides(service.overrides)
        program = service.command.rpartition("/")[2]
        problem = sasl_problem(program, own)
        if problem is not None:
            found.append(ConfigProblem("warning", config.path, 0, f"{program}: no account can log in: {problem}"))
    return list(dict.fromkeys(found))


def _conf(config: Config) -> app_conf.AppConf:
    places = app_conf.places(config.get("cyrus_sasl_config_path"), config.directory)
    return app_conf.load(config.get("smtpd_sasl_path"), places)
