"""master.cf: the services of an instance.

Source: master(5). Each logical line has eight columns: service, type, private, unpriv, chroot, wakeup, maxproc,
command + arguments. `{ ... }` makes one argument of text with white space; `-o name=value` and `-o { name = value }`
override main.cf for one service.

Invariants: every service that is returned has a valid type, valid columns and a command; a file that breaks a rule is
refused with its line. `chroot` "-" means n; below `compatibility_level` 1 it means y where a jail is possible (`jail_default`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from estafeta.config.builtin_master import BUILTIN_MASTER_CF
from estafeta.config.errors import ConfigError
from estafeta.config.expand import ExpandError, compatibility_level
from estafeta.config.main_cf import logical_lines, read_text, split_name_value
from estafeta.config.programs import CANNOT_JAIL
from estafeta.config.values import split_words

if TYPE_CHECKING:
    from estafeta.config.config import Config

__all__ = [
    "BUILTIN_MASTER_CF",
    "MasterEntry",
    "MasterService",
    "disabled_services",
    "jails_by_default",
    "load_master_cf",
    "matches",
    "parse_entries",
    "parse_entry",
    "parse_master_cf",
    "plain",
    "read_master_cf",
    "service_of",
]

SERVICE_TYPES = ("inet", "unix", "fifo", "pass", "unix-dgram")
FIELD_NAMES = ("service", "type", "private", "unprivileged", "chroot", "wakeup", "process_limit", "command")


@dataclass(frozen=True, slots=True)
class MasterEntry:
    """A line of master.cf as written: seven `fields` and the command's `words` (the program first).

    Option words are in the form that postconf prints: `-o`, then `name=value` or `{name=value with spaces}`.
    `physical` are the numbers of the file's lines (from 1) that belong to the entry.
    """

    fields: tuple[str, ...]
    words: tuple[str, ...]
    line: int
    physical: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The first column."""
        return self.fields[0]

    @property
    def type(self) -> str:
        """The second column."""
        return self.fields[1]


@dataclass(frozen=True, slots=True)
class MasterService:
    """One service, its columns understood.

    `wakeup_s` is in seconds, 0 for never; `wakeup_conditional` says that the service is woken only if it is in use
    (`60?`). `maxproc` is None for the default (default_process_limit), 0 for no limit. `args` are the command's
    arguments without `-o` and `-v`; `overrides` are the `-o` pairs in order; `verbose` counts `-v`, `debug` is `-D`.
    """

    name: str
    type: str
    private: bool
    unpriv: bool
    chroot: bool
    wakeup_s: int
    wakeup_conditional: bool
    maxproc: int | None
    command: str
    args: tuple[str, ...]
    overrides: tuple[tuple[str, str], ...]
    verbose: int
    debug: bool
    line: int

    @property
    def host_port(self) -> tuple[str, str]:
        """For type inet: (host, port); the host is "" where none is named, an IPv6 address has no brackets."""
        host, _, port = self.name.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        return host, port


def check_fields(fields: tuple[str, ...], text: str, path: str = "", line: int = 0) -> None:
    """Check the seven columns; raises ConfigError in Postfix's words."""
    where = path or None
    if fields[1] not in SERVICE_TYPES:
        raise ConfigError(f'invalid type field "{fields[1]}" in "{text}"', where, line or None)
    for name, value in zip(FIELD_NAMES[2:5], fields[2:5], strict=True):
        if value not in ("y", "n", "-"):
            raise ConfigError(f'invalid {name} field "{value}" in "{text}"', where, line or None)
    wakeup = fields[5].removesuffix("?")
    if fields[5] != "-" and not _is_number(wakeup):
        raise ConfigError(f'invalid wakeup field "{fields[5]}" in "{text}"', where, line or None)
    if fields[6] != "-" and not _is_number(fields[6]):
        raise ConfigError(f'invalid process_limit field "{fields[6]}" in "{text}"', where, line or None)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def parse_entry(text: str, line: int = 0, physical: tuple[int, ...] = (), path: str = "") -> MasterEntry:
    """Parse one logical line. Raises ConfigError."""
    words = split_words(text, " \t\r\n\f\v")
    if len(words) < 8:
        raise ConfigError("bad field count", path or None, line or None)
    fields = tuple(words[:7])
    check_fields(fields, text, path, line)
    return MasterEntry(fields, tuple(_normal_words(words[7:], path, line)), line, physical)


def _normal_words(words: list[str], path: str, line: int) -> list[str]:
    """Arguments in their printed form: options first come as they are, `{ x }` trimmed, `-oname` split."""
    normal: list[str] = [words[0]]
    rest = iter(words[1:])
    for word in rest:
        if not word.startswith("-") or word == "-":
            normal.append(_argument(word, path, line))
            break
        normal.append(word)
        if word == "-o":
            value = next(rest, None)
            if value is None:
                break
            normal.append(_option(value, path, line))
    normal += [_argument(word, path, line) for word in rest]
    return normal


def _inside(word: str, path: str, line: int) -> str:
    if not word.endswith("}"):
        raise ConfigError(f'missing "}}" in "{word}"', path or None, line or None)
    return word[1:-1].strip()


def _argument(word: str, path: str, line: int) -> str:
    if word.startswith("{"):
        word = _inside(word, path, line)
        if word.startswith("-"):
            return f"{{{word}}}"  # printed without braces it would be read as an option
    return f"{{{word}}}" if _needs_braces(word) else word


def _option(word: str, path: str, line: int) -> str:
    if not word.startswith("{"):
        return f"{{{word}}}" if _needs_braces(word) else word
    inner = _inside(word, path, line)
    try:
        name, value = split_name_value(inner)
    except ValueError as error:
        raise ConfigError(str(error), path or None, line or None) from None
    joined = f"{name}={value}"
    return f"{{{joined}}}" if _needs_braces(joined) else joined


def _needs_braces(word: str) -> bool:
    return not word or word[0] == "{" or any(character in word for character in " \t\r\n\f\v")


def plain(word: str) -> str:
    """An argument without the braces that `MasterEntry.words` has around text that needs them."""
    return word[1:-1] if word.startswith("{") and word.endswith("}") else word


def parse_entries(text: str, path: str = "master.cf", warnings: list[str] | None = None) -> list[MasterEntry]:
    """All entries of a master.cf as written. Raises ConfigError for a malformed line."""
    return [parse_entry(line.text, line.line, line.physical, path) for line in logical_lines(text.split("\n"), warnings)]


def jails_by_default(config: Config) -> bool:
    """What "-" in the chroot column means: y up to Postfix 2, which is what a compatibility_level below 1 asks for."""
    try:
        return compatibility_level(config.get("compatibility_level")) < (1, 0, 0)
    except (ConfigError, ExpandError):
        return False  # reported with its own line


def service_of(entry: MasterEntry, path: str = "master.cf", *, jail_default: bool = False) -> MasterService:
    """Understand the columns of an entry. Raises ConfigError (for a wrong option or a contradiction)."""
    name, kind, private, unpriv, chroot, wakeup, limit = entry.fields
    args: list[str] = []
    overrides: list[tuple[str, str]] = []
    verbose = 0
    debug = False
    words = iter(entry.words[1:])
    for word in words:
        if word == "-o" or (word.startswith("-o") and len(word) > 2):
            pair = plain(next(words, "")) if word == "-o" else word[2:]
            try:
                overrides.append(split_name_value(pair))
            except ValueError as error:
                raise ConfigError(f"service {name}: -o option: {error}", path, entry.line) from None
        elif len(word) > 1 and word[0] == "-" and set(word[1:]) <= {"v", "D"}:
            verbose += word.count("v")
            debug = debug or "D" in word
        else:
            args.append(plain(word))
            args += [plain(rest) for rest in words]
    if kind == "inet":
        if private == "y":
            raise ConfigError(f"service {name}: an inet service cannot be private", path, entry.line)
        host, _, port = name.rpartition(":")
        if not port or (_is_number(port) and not 0 < int(port) < 65536) or host.startswith("[") != host.endswith("]"):
            raise ConfigError(f'service {name}: bad address: "{name}"', path, entry.line, "specify host:port or port")
    elif "/" in name:
        raise ConfigError(f'service {name}: a {kind} service name has no "/"', path, entry.line)
    return MasterService(
        name=name,
        type=kind,
        private=private == "y" or (private == "-" and kind != "inet"),
        unpriv=unpriv != "n",
        chroot=chroot == "y" or (chroot == "-" and jail_default and entry.words[0].rpartition("/")[2] not in CANNOT_JAIL),
        wakeup_s=0 if wakeup == "-" else int(wakeup.removesuffix("?")),
        wakeup_conditional=wakeup.endswith("?"),
        maxproc=None if limit == "-" else int(limit),
        command=entry.words[0],
        args=tuple(args),
        overrides=tuple(overrides),
        verbose=verbose,
        debug=debug,
        line=entry.line,
    )


def parse_master_cf(text: str, path: str = "master.cf", *, jail_default: bool = False) -> list[MasterService]:
    """The services of the text of a master.cf. Raises ConfigError with file, line and reason."""
    services: dict[tuple[str, str], MasterService] = {}
    for entry in parse_entries(text, path):
        service = service_of(entry, path, jail_default=jail_default)
        key = (service.name, service.type)
        if key in services:
            first = services[key].line
            text = f"duplicate service {service.name} {service.type}, first on line {first}"
            raise ConfigError(text, path, entry.line)
        services[key] = service
    return list(services.values())


def read_master_cf(directory: str) -> list[MasterEntry]:
    """The entries of `directory`/master.cf as written; of the built-in one without a file. Raises ConfigError."""
    path = f"{directory}/master.cf"
    return parse_entries(_text(path), path)


def load_master_cf(directory: str, disable: Iterable[str] = (), *, jail_default: bool = False) -> list[MasterService]:
    """The services to run: those of `directory`/master.cf, or the built-in ones if the file is missing.

    `disable` is master_service_disable. Raises ConfigError.
    """
    path = f"{directory}/master.cf"
    services = parse_master_cf(_text(path), path, jail_default=jail_default)
    return disabled_services(services, disable)[0]


def _text(path: str) -> str:
    import os

    return read_text(path) if os.path.lexists(path) else BUILTIN_MASTER_CF


def disabled_services(
    services: Iterable[MasterService], disable: Iterable[str]
) -> tuple[list[MasterService], list[MasterService]]:
    """Split services into (enabled, disabled) by master_service_disable: `name/type` or `type`; `!` excepts.

    The first pattern that matches decides.
    """
    patterns = list(disable)
    enabled: list[MasterService] = []
    disabled: list[MasterService] = []
    for service in services:
        hit = False
        for pattern in patterns:
            negated = pattern.startswith("!")
            if pattern.lstrip("!") in (service.type, f"{service.name}/{service.type}"):
                hit = not negated
                break
        (disabled if hit else enabled).append(service)
    return enabled, disabled


def matches(pattern: str, name: str, kind: str) -> bool:
    """Whether the request `name`, `name/type`, with `*` as wildcard in either place, means a service (postconf(1))."""
    wanted_name, _, wanted_type = pattern.partition("/")
    return wanted_name in ("*", name) and wanted_type in ("", "*", kind)
