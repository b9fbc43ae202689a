"""`postconf -M`, `-F` and `-P`: showing master.cf entries, fields and service parameters.

Source: postconf(1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from estafeta.commands.postconf.options import Options, UsageError
from estafeta.commands.postconf.show_main import load, load_entries, print_value, warn, warn_before, warn_overrides
from estafeta.config.config import Config
from estafeta.config.master_cf import FIELD_NAMES, MasterEntry, matches
from estafeta.config.master_edit import MASTER_LIMIT, Folder, print_command, print_entry
from estafeta.config.usage import analyse, entry_overrides

_SHAPE = {
    "M": (2, "-M option requires service_name[/type]"),
    "F": (3, "-F option requires service_name[/type[/field]]"),
    "P": (3, "-P option requires service_name[/type[/parameter]]"),
}


def split_request(request: str, count: int) -> list[str]:
    """Split `service/type/...` from the left into at most `count` parts, the missing ones being `*`."""
    parts = request.split("/")
    return parts + ["*"] * (count - len(parts))


def show_master(options: Options) -> int:
    """Show what the words ask for (all without words); a request that nothing matches is a warning."""
    count, complaint = _SHAPE[options.mode]
    for request in options.words:
        if request.count("/") >= count:
            raise UsageError(complaint)
    if options.mode == "F":
        for request in options.words:
            field = split_request(request, 3)[2]
            if field not in ("*", *FIELD_NAMES):
                raise UsageError(f'invalid service attribute name: "{field}"')
    config = load(options)
    entries = load_entries(options, required=True)
    usage = analyse(config, entries)
    warn_before(usage)
    for request in options.words or ["*"]:
        service, kind, *rest = split_request(request, count)
        shown = False
        for entry in entries:
            if matches(f"{service}/{kind}", entry.name, entry.type):
                shown = _show(entry, rest[0] if rest else "*", config, options) or shown
        if not shown and options.words:
            warn(f'unmatched request: "{request}"')
    warn_overrides(config, usage)
    return 0


def _show(entry: MasterEntry, wanted: str, config: Config, options: Options) -> bool:
    if options.has("x"):
        entry = expanded(entry, config)
    if options.mode == "M":
        print(print_entry(entry, options.has("f")))
        return True
    shown = False
    prefix = f"{entry.name}/{entry.type}/"
    if options.mode == "F":
        for name, value in zip(FIELD_NAMES, (*entry.fields, ""), strict=True):
            if wanted in ("*", name):
                shown = True
                if name != "command" or options.has("H"):
                    print_value(prefix + name, value, options)
                else:
                    folder = Folder("" if options.has("h") else f"{prefix}{name} =", options.has("f"), MASTER_LIMIT)
                    print_command(entry.words, folder)
                    print(folder.text())
        return shown
    for name, value in sorted(entry_overrides(entry)):
        if wanted in ("*", name):
            shown = True
            print_value(prefix + name, value, options)
    return shown


def expanded(entry: MasterEntry, config: Config) -> MasterEntry:
    """The entry with the values of its `-o` options expanded, as the service itself would see them."""
    local = config.with_overrides([("service_name", entry.name), *entry_overrides(entry)])
    return replace(entry, words=tuple(_expand_words(entry.words, local)))


def _expand_words(words: tuple[str, ...], local: Config) -> Iterator[str]:
    yield words[0]
    rest = iter(words[1:])
    for word in rest:
        yield word
        if not word.startswith("-") or word == "-":
            break
        if word == "-o" and (value := next(rest, None)) is not None:
            text = local.expand(value.removeprefix("{").removesuffix("}") if value.startswith("{") else value)
            yield f"{{{text}}}" if " " in text else text
    yield from rest
