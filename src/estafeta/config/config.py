"""Config: the settings of one main.cf over the registry's defaults, read-only and typed.

Source: postconf(5). A `Config` never changes; `with_overrides` gives a new one (the `-o name=value` of master.cf).

Invariants: a getter returns the fully expanded, typed value or raises ConfigError that names the parameter, the file
and the line of the setting. Values are expanded once and kept. Names and values are `str`; bytes of the file that are
no UTF-8 survive as surrogates.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from estafeta.config import host
from estafeta.config.errors import ConfigError
from estafeta.config.expand import ExpandError, expand
from estafeta.config.main_cf import MainCf, Setting, default_directory, read_main_cf
from estafeta.config.registry import COMPUTED, find_parameter, parameters
from estafeta.config.values import parse_bool, parse_int, parse_size, parse_time, split_words, validate

_CACHE_LIMIT = 4096
_T = TypeVar("_T")
_Int = int
_Bool = bool
# The class below has methods called `int` and `bool`, as its readers expect; annotations need other names.


class Config:
    """The configuration of one instance. Make it with `load_config`."""

    __slots__ = ("_expanded", "_settings", "_typed", "directory", "path", "reads_files", "warnings")

    def __init__(self, directory: str, settings: Mapping[str, Setting], warnings: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.path = f"{directory}/main.cf"
        self.warnings = warnings
        self.reads_files = True  # False for postconf, which shows the name of the file of myorigin
        self._settings = dict(settings)
        self._expanded: dict[str, str] = {}
        self._typed: dict[str, object] = {}

    # What is set.

    def is_set(self, name: str) -> _Bool:
        """Whether `name` is set in main.cf or by an override."""
        return name in self._settings

    def set_names(self) -> list[str]:
        """The names that are set, in the order of the file, overrides last."""
        return list(self._settings)

    def setting(self, name: str) -> Setting | None:
        """The setting of `name` with its line (0 for an override), or None if it has its default."""
        return self._settings.get(name)

    def raw(self, name: str) -> str:
        """The value as written, or else the default as written. Raises ConfigError for an unknown name."""
        value = self._lookup(name)
        if value is None:
            raise ConfigError(f"unknown parameter: {name}", self.path)
        return value

    def raw_setting(self, name: str) -> str:
        """The value of a setting as written; "" if it is not set."""
        setting = self._settings.get(name)
        return setting.value if setting is not None else ""

    def default(self, name: str) -> str | None:
        """The default of `name` as written (computed ones computed), or None for a name that the registry lacks."""
        parameter = find_parameter(name)
        if parameter is None:
            return None
        return self._computed(name) if parameter.default == COMPUTED else parameter.default

    def _lookup(self, name: str) -> str | None:
        setting = self._settings.get(name)
        return setting.value if setting is not None else self.default(name)

    def _lookup_content(self, name: str) -> str | None:
        if name == "myorigin" and self.is_set(name):
            return self.get(name)
        return self._lookup(name)

    def _first_line(self, path: str) -> str:
        # Debian's Postfix: a myorigin that is a file name means the first line of the file (/etc/mailname).
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as stream:
                value = stream.readline(1024).strip()
        except OSError as error:
            raise self.error("myorigin", f"{path}: cannot open file: {error.strerror}") from None
        if not value:
            raise self.error("myorigin", f"{path}: the first line is empty")
        return value

    # Text.

    def get(self, name: str) -> str:
        """The expanded value; a parameter of type `raw` comes as written. Raises ConfigError."""
        value = self._expanded.get(name)
        if value is None:
            parameter = find_parameter(name)
            raw = self.raw(name)
            if parameter is not None and parameter.kind == "raw":
                value = self._follow_raw(raw)
            else:
                try:
                    value = expand(raw, self._lookup_content)
                except ExpandError as error:
                    raise self.error(name, str(error)) from None
                if name == "myorigin" and self.reads_files and value.startswith("/"):
                    value = self._first_line(value)
            if len(self._expanded) >= _CACHE_LIMIT:
                self._expanded.clear()
            self._expanded[name] = value
        return value

    def _follow_raw(self, value: str) -> str:
        # "$smtpd_expansion_filter" as the whole value of another unexpanded parameter means that parameter.
        for _ in range(8):
            parameter = find_parameter(value[1:]) if value.startswith("$") else None
            if parameter is None or parameter.kind != "raw":
                break
            value = self.raw(value[1:])
        return value

    def expand(self, text: str) -> str:
        """Expand `$name` expressions in any text. Raises ConfigError."""
        try:
            return expand(text, self._lookup)
        except ExpandError as error:
            raise ConfigError(str(error), self.path) from None

    def lookup(self, name: str) -> str | None:
        """The expanded value of a parameter that may be the administrator's own; None if it is not defined."""
        return None if self._lookup(name) is None else self.get(name)

    # Typed values.

    def bool(self, name: str) -> _Bool:
        """A yes/no parameter."""
        value = self._value(name)
        return value if isinstance(value, bool) else self._convert(name, parse_bool)

    def int(self, name: str) -> _Int:
        """A numerical parameter."""
        value = self._value(name)
        return value if type(value) is int else self._convert(name, parse_int)

    def size(self, name: str) -> _Int:
        """A number of bytes."""
        value = self._value(name)
        return value if type(value) is int else self._convert(name, parse_size)

    def seconds(self, name: str) -> float:
        """A time, in seconds; a bare number has the unit that the parameter's manual entry gives."""
        value = self._value(name)
        return float(value) if type(value) is int else float(self._convert(name, parse_time))

    def words(self, name: str) -> list[str]:
        """The elements of a list: split at comma and white space, { } groups kept together with their braces."""
        return split_words(self.get(name))

    def transport(self, transport: str, suffix: str, kind: str = "int") -> _Int | float | str | _Bool:
        """A parameter of a transport: `transport("smtp", "destination_concurrency_limit")`.

        `kind` is one of "int", "size", "seconds", "str", "bool".
        """
        name = f"{transport}_{suffix}"
        if kind == "int":
            return self.int(name)
        if kind == "seconds":
            return self.seconds(name)
        if kind == "size":
            return self.size(name)
        return self.bool(name) if kind == "bool" else self.get(name)

    def _value(self, name: str) -> object:
        value = self._typed.get(name)
        if value is None:
            parameter = find_parameter(name)
            text = self.get(name)
            if parameter is None:
                return text
            try:
                value = validate(parameter, text)
            except ValueError as error:
                raise self.error(name, str(error)) from None
            if len(self._typed) >= _CACHE_LIMIT:
                self._typed.clear()
            self._typed[name] = value
        return value

    def _convert(self, name: str, parse: Callable[[str], _T]) -> _T:
        # A name of the administrator's own, or one read as another type than the registry gives.
        try:
            return parse(self.get(name))
        except ValueError as error:
            raise self.error(name, str(error)) from None

    def error(self, name: str, reason: str) -> ConfigError:
        """A ConfigError about parameter `name`, with the place where it is set."""
        setting = self._settings.get(name)
        return ConfigError(f"parameter {name}: {reason}", self.path, setting.line if setting else None)

    # Other views.

    def with_overrides(self, pairs: Iterable[tuple[str, str]]) -> Config:
        """A new Config in which each `(name, value)` replaces what main.cf says."""
        settings = dict(self._settings)
        for name, value in pairs:
            settings[name] = Setting(name, value, 0)
        config = Config(self.directory, settings, self.warnings)
        config.reads_files = self.reads_files
        return config

    def _computed(self, name: str) -> str:
        if name == "config_directory":
            return self.directory
        if name == "process_id":
            return str(os.getpid())
        if name == "process_name":
            import sys

            return os.path.basename(sys.argv[0] or "python")
        if name == "myhostname":
            node = host.host_name()
            return node if "." in node else f"{node}.{self._plain_domain()}"
        if name == "mydomain":
            node = self._expand_quietly(self._settings["myhostname"].value) if self.is_set("myhostname") else ""
            node = node or host.host_name()
            return node.partition(".")[2] or "localdomain"
        if name == "mynetworks":
            addresses = host.addresses_of(self.words("inet_interfaces"), self.words("inet_protocols"))
            return host.trusted_networks(self.get("mynetworks_style").strip().lower(), addresses)
        raise AssertionError(name)

    def _plain_domain(self) -> str:
        setting = self._settings.get("mydomain")
        return (self._expand_quietly(setting.value) if setting else "") or "localdomain"

    def _expand_quietly(self, text: str) -> str:
        # Only what is set counts here: myhostname and mydomain may refer to one another.
        try:
            return expand(text, lambda name: self._settings[name].value if name in self._settings else None)
        except ExpandError:
            return ""


def load_config(directory: str | None = None, overrides: Iterable[tuple[str, str]] = ()) -> Config:
    """Read main.cf of `directory` (default: $MAIL_CONFIG, else /etc/postfix). Raises ConfigError."""
    main = read_main_cf(directory or default_directory())
    return config_from(main, directory or default_directory()).with_overrides(overrides)


def config_from(main: MainCf, directory: str) -> Config:
    """A Config of a main.cf that is parsed already."""
    return Config(directory, main.settings, main.warnings)


def default_config(directory: str = "/etc/postfix") -> Config:
    """A Config in which nothing is set: the defaults."""
    return Config(directory, {})


def is_builtin(name: str) -> bool:
    """Whether Postfix 3.7 knows `name` as a main.cf parameter of its own."""
    parameter = parameters().get(name)
    return parameter is not None and parameter.builtin
