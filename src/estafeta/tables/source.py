"""Where the parameters of an external table come from: a file of its own, or main.cf with the table's name as prefix.

Source: mysql_table(5), pgsql_table(5), ldap_table(5), sqlite_table(5), memcache_table(5). A name that begins with a slash or
a dot is a file in the format of main.cf, read here and never again (so it may be readable by root only); ``$name`` is not
expanded in it. Any other name is the old form: ``NAME_hosts`` and so on in main.cf.
"""

from __future__ import annotations

from estafeta.config.errors import ConfigError
from estafeta.tables.table import OpenOptions, TableError


class Source:
    """The parameters of one table; every method raises TableError for a value that cannot be used."""

    def __init__(self, kind: str, name: str, options: OpenOptions) -> None:
        """Raises TableError when the file cannot be read or parsed."""
        self.kind = kind
        self.name = name
        self._settings: dict[str, str] | None = None
        self._options = options
        self._prefix = f"{name}_"
        if name.startswith(("/", ".")):
            from estafeta.config.main_cf import parse_main_cf, read_text

            self._prefix = f"{name}: "
            try:
                parsed = parse_main_cf(read_text(name), name)
            except ConfigError as error:
                raise TableError(str(error)) from None
            for warning in parsed.warnings:
                options.warn(warning)
            self._settings = {key: setting.value for key, setting in parsed.settings.items()}

    def get(self, name: str) -> str | None:
        """The value, None if it is not set."""
        if self._settings is not None:
            return self._settings.get(name)
        return self._options.parameter(f"{self.name}_{name}")

    def _where(self, text: str, name: str, value: str) -> str:
        if self._settings is not None:
            return f"{self.name}: {text}: {name} = {value}"
        return f"{text}: {self.name}_{name} = {value}"

    def text(self, name: str, default: str = "", least: int = 0) -> str:
        """A string of at least ``least`` characters."""
        value = self.get(name)
        if value is None:
            value = default
        if len(value) < least:
            raise TableError(self._where(f"bad string length {len(value)} < {least}", name, value))
        return value

    def number(self, name: str, default: int, least: int = 0, most: int = 0) -> int:
        """A whole number; ``most`` 0: no upper limit."""
        value = self.get(name)
        if value is None:
            return default
        if not (value.isascii() and value.lstrip("-").isdigit()):
            raise TableError(self._where("bad numerical configuration", name, value))
        number = int(value)
        if number < least:
            raise TableError(self._where(f"invalid value < {least}", name, value))
        if most and number > most:
            raise TableError(self._where(f"invalid value > {most}", name, value))
        return number

    def flag(self, name: str, default: bool) -> bool:
        """``yes`` or ``no``."""
        value = self.get(name)
        if value is None:
            return default
        if value.lower() not in ("yes", "no"):
            raise TableError(self._where("bad boolean configuration", name, value))
        return value.lower() == "yes"

    def words(self, name: str, default: str = "") -> list[str]:
        """A list separated by commas or blanks."""
        return self.text(name, default).replace(",", " ").split()
