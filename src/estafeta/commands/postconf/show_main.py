"""`postconf`, `-d`, `-n`, `-x`, `-C`: showing main.cf parameters.

Source: postconf(1). A value is shown with its white space squeezed, and folded at 80 columns with -f.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from estafeta.commands.postconf.options import Options
from estafeta.config.config import Config, default_config
from estafeta.config.errors import ConfigError
from estafeta.config.main_cf import Setting, read_main_cf, read_text
from estafeta.config.master_cf import MasterEntry, parse_entries
from estafeta.config.master_edit import Folder
from estafeta.config.registry import parameters
from estafeta.config.usage import Usage, analyse


def printable(text: str) -> str:
    """`text` with each byte that is no printable ASCII as "?", as in Postfix's messages."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in text.encode("utf-8", "surrogateescape"))


def warn(text: str) -> None:
    """One warning line to standard error."""
    sys.stdout.flush()
    print(f"postconf: warning: {printable(text)}", file=sys.stderr)


def load(options: Options) -> Config:
    """The Config of the command line: main.cf with -o overrides and the directory that -c names."""
    main = read_main_cf(options.directory)
    settings = dict(main.settings)
    if options.directory_given and "config_directory" not in settings:
        settings["config_directory"] = Setting("config_directory", options.directory, 0)
    for text in main.warnings:
        warn(text)
    config = Config(options.directory, settings)
    config.reads_files = False
    return config.with_overrides(options.overrides)


def load_entries(options: Options, required: bool) -> list[MasterEntry]:
    """The entries of master.cf; a file that cannot be read is a warning unless it is `required`."""
    path = f"{options.directory}/master.cf"
    try:
        text = read_text(path)
    except ConfigError as error:
        if required:
            raise
        warn(str(error))
        return []
    notes: list[str] = []
    entries = parse_entries(text, path, notes)
    for note in notes:
        warn(f"{path}: {note}")
    return entries


def warn_before(usage: Usage) -> None:
    """The warnings that come before the output."""
    for where, name in usage.undefined:
        warn(f"{where}: undefined parameter: {name}")
    for where, text in usage.unused_table:
        warn(f"{where}: unused parameter: {text}")
    for note in usage.notes:
        warn(note)


def warn_after(config: Config, usage: Usage) -> None:
    """The warnings that come after the output of main.cf parameters."""
    for name in usage.unused_main:
        warn(f"{config.path}: unused parameter: {name}={config.raw_setting(name)}")
    warn_overrides(config, usage)


def warn_overrides(config: Config, usage: Usage) -> None:
    """The warnings that come after the output of master.cf entries."""
    for name, value in usage.unused_overrides:
        warn(f"{config.directory}/master.cf: unused parameter: {name}={value}")


def print_value(label: str, value: str, options: Options) -> None:
    """One line `label = value`, as -h, -H and -f ask for."""
    if options.has("H"):
        print(label)
        return
    folder = Folder("" if options.has("h") else f"{label} =", options.has("f"))
    for word in value.split():
        folder.same_line(word)
    print(folder.text())


def show_main(options: Options) -> int:
    """Show parameters; 0 even if some are unknown, which are reported."""
    if options.has("d"):
        config = default_config()
        usage = Usage()
        entries = load_entries(options, required=False)
        usage = analyse(config, entries)
        names = options.words or _names(options, usage, config)
        _print(names, config, usage, options)
        return 0
    config = load(options)
    usage = analyse(config, load_entries(options, required=False))
    warn_before(usage)
    _print(options.words or _names(options, usage, config), config, usage, options)
    warn_after(config, usage)
    return 0


def _names(options: Options, usage: Usage, config: Config) -> list[str]:
    names: set[str] = set()
    if "builtin" in options.classes:
        names.update(name for name, found in parameters().items() if found.builtin)
        names.update(name for name in config.set_names() if name in parameters() and _known(name, config, usage))
        names -= usage.user
    if "service" in options.classes:
        names.update(usage.services)
    if "user" in options.classes and not options.has("d"):
        names.update(usage.user)
    return sorted(names, key=lambda name: name.encode("utf-8", "surrogateescape"))


def _known(name: str, config: Config, usage: Usage) -> bool:
    if name in usage.services or name in usage.user:
        return True
    parameter = parameters().get(name)
    return parameter is not None and name not in usage.unused_main and (parameter.builtin or parameter.area == "later")


def _shown(name: str, config: Config, options: Options) -> str:
    parameter = parameters().get(name)
    if not options.has("x") or (parameter is not None and parameter.kind == "raw"):
        return config.raw(name)
    return config.get(name)


def _print(names: Iterable[str], config: Config, usage: Usage, options: Options) -> None:
    # A listing of everything need not compute what is not shown (mynetworks asks the kernel).
    for name in names:
        if not _known(name, config, usage):
            warn(f"{name}: unknown parameter")
            continue
        if options.has("n") and not config.is_set(name):
            continue
        value = "" if options.has("H") else _shown(name, config, options)
        print_value(name, value, options)
