"""Which settings of main.cf and master.cf have an effect at all, by their names.

Source: postconf(1), the warnings about unused and undefined parameters (Postfix 2.9 and later); measured.

A name is valid if it is built in, belongs to a delivery service of master.cf, is a restriction class, is the source of
a database table that a built-in parameter names (`ldap:NAME` makes `NAME_server_host` valid), or if any value refers
to it. Unexpanded (`raw`) values refer to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from estafeta.config.config import Config
from estafeta.config.errors import ConfigError
from estafeta.config.expand import ExpandError, names_in
from estafeta.config.implemented import is_implemented
from estafeta.config.legacy import EFFECTIVE_OLD_NAMES
from estafeta.config.main_cf import parse_main_cf, read_text
from estafeta.config.master_cf import MasterEntry, plain
from estafeta.config.registry import Parameter, parameters, service_parameters
from estafeta.config.table_parameters import TABLE_PARAMETERS
from estafeta.config.values import split_words

READ_ONLY = ("process_id", "process_name", "service_name")


@dataclass(slots=True)
class Usage:
    """The result of `analyse`. `warnings` are lines to show before any output, `unused` those to show after it."""

    services: dict[str, Parameter] = field(default_factory=dict)
    user: set[str] = field(default_factory=set)
    unused_main: list[str] = field(default_factory=list)
    undefined: list[tuple[str, str]] = field(default_factory=list)
    unused_overrides: list[tuple[str, str]] = field(default_factory=list)
    unused_table: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def entry_overrides(entry: MasterEntry) -> list[tuple[str, str]]:
    """The `-o name=value` pairs of a master.cf entry as written; later ones of the same name win."""
    pairs: dict[str, str] = {}
    words = iter(entry.words[1:])
    for word in words:
        if not word.startswith("-") or word == "-":
            break
        if word == "-o":
            name, equals, value = plain(next(words, "")).partition("=")
            if equals and name.strip():
                pairs[name.strip()] = value.strip()
    return list(pairs.items())


def service_programs(entries: Iterable[MasterEntry]) -> dict[str, str]:
    """Service name -> program, for `registry.service_parameters`; the first service of a name counts."""
    known: dict[str, str] = {}
    for entry in entries:
        if entry.words[0] in ("error", "lmtp", "local", "pipe", "smtp", "spawn", "virtual"):
            known.setdefault(entry.name, entry.words[0])
    return known


class _Scan:
    def __init__(self, config: Config, entries: list[MasterEntry], usage: Usage) -> None:
        self.config = config
        self.usage = usage
        self.builtin = parameters()
        self.local = {name for entry in entries for name, _ in entry_overrides(entry)}
        self.seen: set[tuple[str, str]] = set()
        self.files: set[str] = set()

    def known(self, name: str) -> bool:
        parameter = self.builtin.get(name)
        if parameter is not None:
            return parameter.builtin or is_implemented(name)
        return name in self.usage.services

    def value(self, text: str, where: str, local: Mapping[str, str] | None = None) -> None:
        """Follow everything that a value in use refers to."""
        if "$" in text:
            for name in names_in(text):
                self.name(name, where, local or {})

    def tables(self, text: str) -> None:
        """Follow the database tables that a finished value names."""
        if ":" in text:
            for word in split_words(text):
                self.table(word)

    def name(self, name: str, where: str, local: Mapping[str, str]) -> None:
        if self.known(name) or name in READ_ONLY:
            return
        if name in local:
            self.value(local[name], where, {key: value for key, value in local.items() if key != name})
        elif self.config.is_set(name):
            self.user(name)
        elif name not in self.local and name not in EFFECTIVE_OLD_NAMES and (where, name) not in self.seen:
            self.seen.add((where, name))
            self.usage.undefined.append((where, name))

    def user(self, name: str) -> None:
        setting = self.config.setting(name)
        if setting is None or name in self.usage.user or self.known(name):
            return
        self.usage.user.add(name)
        self.value(setting.value, self.config.path)

    def table(self, word: str) -> None:
        word = word.strip()
        for wrapper in ("unionmap:{", "pipemap:{"):
            if word.startswith(wrapper):
                for inner in split_words(word.removeprefix(wrapper).removesuffix("}")):
                    self.table(inner)
                return
        while word.startswith("proxy:"):
            word = word.removeprefix("proxy:")
        kind, _, source = word.partition(":")
        names = TABLE_PARAMETERS.get(kind)
        if names is None or not source or "$" in source:
            return
        if source.startswith(("/", ".")):
            self.table_file(kind, source, names)
            return
        for suffix in names:
            self.user(f"{source}_{suffix}")

    def table_file(self, kind: str, path: str, names: frozenset[str]) -> None:
        if path in self.files:
            return
        self.files.add(path)
        try:
            main = parse_main_cf(read_text(path), path)
        except ConfigError as error:
            reason = error.reason.partition(": ")[2] if error.line is None else str(error)
            self.usage.notes.append(f'open "{kind}" configuration "{path}": {reason}')
            return
        for setting in main.settings.values():
            if setting.name not in names:
                self.usage.unused_table.append((f"{kind}:{path}", f"{setting.name}={setting.value}"))


def analyse(config: Config, entries: list[MasterEntry]) -> Usage:
    """Sort the settings of main.cf and the overrides of master.cf. Raises ConfigError for a bad `$` expression."""
    usage = Usage()
    usage.services = service_parameters(service_programs(entries))
    scan = _Scan(config, entries, usage)
    master_path = f"{config.directory}/master.cf"
    try:
        for entry in entries:
            local = dict(entry_overrides(entry))
            for name, value in local.items():
                if scan.known(name):
                    scan.value(value, master_path, local)
                    scan.tables(value)
        for name in EFFECTIVE_OLD_NAMES:
            scan.user(name)
        if config.is_set("smtpd_restriction_classes"):
            for name in config.words("smtpd_restriction_classes"):
                scan.name(name, config.path, {})
        for name in config.set_names():
            setting = config.setting(name)
            parameter = scan.builtin.get(name) or usage.services.get(name)
            if setting is None:
                continue
            if parameter is None or parameter.kind != "raw":
                scan.value(setting.value, config.path)
            if scan.known(name):
                scan.tables(config.get(name))
                if name in READ_ONLY and setting.line:
                    usage.notes.append(f"{config.path}: read-only parameter assignment: {name}={setting.value}")
    except ExpandError as error:
        raise ConfigError(str(error)) from None
    for name in config.set_names():
        if not scan.known(name) and name not in usage.user:
            usage.unused_main.append(name)
    _unused_overrides(usage, scan, entries)
    return usage


def _unused_overrides(usage: Usage, scan: _Scan, entries: list[MasterEntry]) -> None:
    """An override of a name that nothing refers to: not built in, not used by main.cf nor by its own line."""
    referenced: set[str] = set()
    for name in scan.config.set_names():
        setting = scan.config.setting(name)
        if setting is not None and "$" in setting.value and (scan.known(name) or name in usage.user):
            referenced.update(names_in(setting.value))
    classes = scan.config.words("smtpd_restriction_classes") if scan.config.is_set("smtpd_restriction_classes") else []
    referenced.update(classes)
    for entry in entries:
        pairs = dict(entry_overrides(entry))
        used = set(referenced) | EFFECTIVE_OLD_NAMES
        for name, value in pairs.items():
            if scan.known(name) and "$" in value:
                used.update(names_in(value))
            if name == "smtpd_restriction_classes":
                used.update(split_words(value))
        # Names that become used through another override of the same line.
        growing = True
        while growing:
            growing = False
            for name, value in pairs.items():
                if name in used and "$" in value and (more := set(names_in(value)) - used):
                    used |= more
                    growing = True
        for name, value in pairs.items():
            if not scan.known(name) and name not in used:
                usage.unused_overrides.append((name, value))
