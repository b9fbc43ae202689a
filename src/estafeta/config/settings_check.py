"""What `postfix check` says about main.cf and master.cf.

Source: postfix(1) check, postconf(5), master(5). Fatal problems keep the system from starting; the others are warnings:
old names, settings without effect, settings that nothing here implements yet.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from estafeta.config.config import Config, load_config
from estafeta.config.environment_check import check_environment
from estafeta.config.errors import ConfigError, ConfigProblem
from estafeta.config.filter_check import filter_problems
from estafeta.config.implemented import is_implemented
from estafeta.config.legacy import MODERN_SERVICE, restriction_warning, table_warning, warning_for
from estafeta.config.master_cf import MasterEntry, MasterService, jails_by_default, read_master_cf, service_of
from estafeta.config.programs import CANNOT_JAIL
from estafeta.config.registry import find_parameter, parameters
from estafeta.config.restrictions import restriction_problems
from estafeta.config.usage import Usage, analyse
from estafeta.config.values import split_words, validate


def check_settings(config: Config, entries: list[MasterEntry] | None = None) -> list[ConfigProblem]:
    """The problems of main.cf, in the order of the file; `entries` (of master.cf) tell which services there are."""
    problems = [ConfigProblem("warning", "", 0, text) for text in config.warnings]
    if entries is None:
        try:
            entries = read_master_cf(config.directory)
        except ConfigError:
            entries = []
    usage = Usage()
    try:
        usage = analyse(config, entries)
    except ConfigError as error:
        problems.append(_problem("fatal", config.path, error))
    problems += [ConfigProblem("warning", where, 0, f"undefined parameter: {name}") for where, name in usage.undefined]
    problems += [ConfigProblem("warning", config.path, 0, note) for note in usage.notes]
    for name in config.set_names():
        problems += _check_one(name, config, usage)
    problems += _check_limits(config)
    problems += check_environment(config)
    if entries is None or not any(os.path.basename(entry.words[0]) == "smtpd" for entry in entries):
        problems += _check_restrictions(config, config.path, 0, "")
    return _once(problems)


def _once(problems: list[ConfigProblem]) -> list[ConfigProblem]:
    """Without what is said twice: a problem that has no line, if another one with its text has."""
    placed = [problem for problem in problems if problem.line]
    kept = [problem for problem in problems if problem.line or not any(one.text.endswith(problem.text) for one in placed)]
    return list(dict.fromkeys(kept))


def _check_restrictions(config: Config, path: str, line: int, label: str) -> list[ConfigProblem]:
    found: list[ConfigProblem] = []
    try:
        problems = restriction_problems(config)
    except ConfigError:
        return found  # reported with its own line already
    for name, severity, text in problems:
        setting = config.setting(name)
        if name == "smtpd_relay_restrictions" and not (setting or config.is_set("smtpd_recipient_restrictions")):
            # compatibility_level 0 has no default for either: everything but smtpd can work with that, as in Postfix
            severity, text = "warning", f"{text}; until then smtpd does not run"
        if setting is None or setting.line:
            found.append(ConfigProblem(severity, config.path, setting.line if setting else 0, f"parameter {name}: {text}"))
        else:
            found.append(ConfigProblem(severity, path, line, f"{label}: parameter {name}: {text}"))
    return found


def _problem(severity: str, path: str, error: ConfigError) -> ConfigProblem:
    return ConfigProblem(severity, error.path or path, error.line or 0, error.reason)


def _check_one(name: str, config: Config, usage: Usage) -> list[ConfigProblem]:
    found: list[ConfigProblem] = []
    setting = config.setting(name)
    if setting is None:
        return found
    line = setting.line
    parameter = parameters().get(name) or usage.services.get(name)
    if parameter is not None:
        try:
            text = config.get(name)
            validate(parameter, text)
        except ConfigError as error:
            return [_problem("fatal", config.path, error)]
        except ValueError as error:
            return [ConfigProblem("fatal", config.path, line, f"parameter {name}: {error}")]
        if name.startswith("smtpd_") and name.endswith("_restrictions"):
            for word in split_words(text):
                old = restriction_warning(word)
                if old is not None:
                    found.append(ConfigProblem("warning", config.path, line, f"parameter {name}: {old}"))
        for word in split_words(text) if "dbm:" in text else ():
            old = table_warning(word)
            if old is not None:
                found.append(ConfigProblem("warning", config.path, line, f"parameter {name}: {old}"))
    old = warning_for(name)
    if old is not None:
        found.append(ConfigProblem("warning", config.path, line, old))
    if name in usage.unused_main and old is None:
        found.append(ConfigProblem("warning", config.path, line, f"unused parameter: {name}={setting.value}"))
    elif parameter is not None and name not in usage.user and not is_implemented(name):
        text = f"parameter {name} is set but not implemented: it has no effect"
        found.append(ConfigProblem("warning", config.path, line, text))
    return found


def _check_limits(config: Config) -> list[ConfigProblem]:
    """Limits that contradict one another, which Postfix refuses to run with."""
    found: list[ConfigProblem] = []
    try:
        message = config.size("message_size_limit")
        for name in ("mailbox_size_limit", "virtual_mailbox_limit"):
            limit = config.size(name)
            if limit and (limit < message or message == 0):
                setting = config.setting(name) or config.setting("message_size_limit")
                found.append(
                    ConfigProblem(
                        "fatal" if config.is_set(name) else "warning",
                        config.path,
                        setting.line if setting else 0,
                        f"main.cf configuration error: {name} is smaller than message_size_limit",
                    )
                )
    except ConfigError:
        pass  # Reported with its own line already.
    return found


def check_services(
    services: list[MasterService], path: str, config: Config, known_programs: Collection[str] | None = None
) -> list[ConfigProblem]:
    """Problems of master.cf services: programs that there are none of, jails that cannot work, bad `-o` values."""
    found: list[ConfigProblem] = []
    seen: dict[tuple[str, str], int] = {}
    for service in services:
        label = f"service {service.name}/{service.type}"
        program = os.path.basename(service.command)
        if known_programs is not None and program not in known_programs:
            # A private service named after its own program is somebody's own agent, which we cannot run; the rest is misspelt.
            foreign = service.type != "inet" and service.private and service.name == program
            text = f"{label}: no such program: {service.command}"
            if foreign:
                found.append(ConfigProblem("warning", path, service.line, f"{text}: the service does not run"))
            else:
                found.append(ConfigProblem("fatal", path, service.line, text))
        if service.chroot and program in CANNOT_JAIL:
            found.append(ConfigProblem("fatal", path, service.line, f"{label}: {program} cannot run in a jail"))
        for old in (service.type, program):
            if old in MODERN_SERVICE:
                text = f"{label}: {old} is an old form; use {MODERN_SERVICE[old]} instead"
                found.append(ConfigProblem("warning", path, service.line, text))
        if service.type == "inet" and service.wakeup_s:
            found.append(ConfigProblem("warning", path, service.line, f"{label}: an inet service is not woken up"))
        key = (service.name, service.type)
        if key in seen:
            text = f"{label}: duplicate service, first on line {seen[key]}"
            found.append(ConfigProblem("fatal", path, service.line, text))
        seen.setdefault(key, service.line)
        own = config.with_overrides([("service_name", service.name), *service.overrides])
        if program == "smtpd":
            found += [one for one in _check_restrictions(own, path, service.line, label) if one not in found]
        for name, _ in service.overrides:
            parameter = find_parameter(name)
            if parameter is None:
                continue
            try:
                validate(parameter, own.get(name))
            except ConfigError as error:
                found.append(ConfigProblem("fatal", path, service.line, f"{label}: {error.reason}"))
            except ValueError as error:
                found.append(ConfigProblem("fatal", path, service.line, f"{label}: parameter {name}: {error}"))
            else:
                if name in parameters() and not is_implemented(name):
                    text = f"{label}: parameter {name} is set but not implemented: it has no effect"
                    found.append(ConfigProblem("warning", path, service.line, text))
    return found


def check_configuration(directory: str, known_programs: Collection[str] | None = None) -> list[ConfigProblem]:
    """Every problem of `directory`/main.cf and master.cf. `known_programs` are the daemons that can be started."""
    master_path = f"{directory}/master.cf"
    try:
        config = load_config(directory)
    except ConfigError as error:
        return [_problem("fatal", f"{directory}/main.cf", error)]
    entries: list[MasterEntry] | None = None
    problems: list[ConfigProblem] = []
    try:
        entries = read_master_cf(directory)
    except ConfigError as error:
        problems.append(_problem("fatal", master_path, error))
    problems[:0] = check_settings(config, entries)
    services: list[MasterService] = []
    jail_default = jails_by_default(config)
    for entry in entries or []:
        try:
            services.append(service_of(entry, master_path, jail_default=jail_default))
        except ConfigError as error:
            problems.append(_problem("fatal", master_path, error))
    unsaid = {entry.line for entry in entries or () if entry.fields[4] == "-"}
    if any(service.chroot and service.line in unsaid for service in services):
        text = "using backwards-compatible default setting chroot=y (compatibility_level is below 1)"
        problems.append(ConfigProblem("warning", master_path, 0, text))
    problems += check_services(services, master_path, config, known_programs)
    problems += filter_problems(services, master_path, config)
    if entries is not None:
        try:
            usage = analyse(config, entries)
        except ConfigError:
            return problems
        problems += [
            ConfigProblem("warning", master_path, 0, f"unused parameter: {name}={value}")
            for name, value in usage.unused_overrides
        ]
    return list(dict.fromkeys(problems))
