"""`postconf -e`, `-#`, `-X`, alone or with -M, -F and -P: editing main.cf and master.cf.

Source: postconf(1). All arguments are checked before the file is touched.
"""

from __future__ import annotations

from dataclasses import replace

from estafeta.commands.postconf.options import Options, UsageError
from estafeta.commands.postconf.show_main import warn
from estafeta.config.errors import ConfigError
from estafeta.config.main_cf import edit_main_cf, split_name_value
from estafeta.config.master_cf import FIELD_NAMES, MasterEntry, check_fields, matches, parse_entry
from estafeta.config.master_edit import edit_master, read_for_edit
from estafeta.config.usage import entry_overrides


def run_edit(options: Options) -> int:
    """Do the edit that the options ask for; 0, or UsageError/ConfigError."""
    for word in options.words:
        if "\n" in word:
            raise UsageError("-e, -X, or -# accepts no multi-line input")
        if word.lstrip().startswith("#"):
            raise UsageError("-e, -X, or -# accepts no comment input")
    if options.mode == "main":
        return _edit_main(options)
    if options.mode == "M":
        return _edit_entries(options)
    return _edit_fields(options) if options.mode == "F" else _edit_parameters(options)


def _pair(word: str) -> tuple[str, str]:
    try:
        return split_name_value(word)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _edit_main(options: Options) -> int:
    if options.has("e"):
        result = edit_main_cf(options.directory, update=dict(_pair(word) for word in options.words))
    elif options.has("#"):
        result = edit_main_cf(options.directory, comment=options.words)
    else:
        result = edit_main_cf(options.directory, remove=options.words)
    for name in result.repeated:
        warn(f'{options.directory}/main.cf: multiple entries for "{name}"')
    return 0


def _edit_entries(options: Options) -> int:
    """-Me, -MX and -M#."""
    requests: list[tuple[str, str, MasterEntry | None]] = []
    for word in options.words:
        request, value = _pair(word) if options.has("e") else (word.strip(), "")
        if request.count("/") != 1:
            raise UsageError("-Me, -MX or -M# requires service_name/type")
        entry = None
        if options.has("e"):
            try:
                entry = parse_entry(value)
            except ConfigError as error:
                detail = f': "{word}"' if error.reason == "bad field count" else ""
                raise UsageError(f"{error.reason}{detail}") from None
        requests.append((*_service(request), entry))
    used: set[int] = set()

    def change(entry: MasterEntry) -> MasterEntry | str | None:
        for index, (name, kind, new) in enumerate(requests):
            if matches(f"{name}/{kind}", entry.name, entry.type):
                used.add(index)
                return new if new is not None else "#" if options.has("#") else None
        return entry

    # What no entry matches is added at the end; that is known only after a first look.
    _, _, entries = read_for_edit(options.directory)
    for entry in entries:
        change(entry)
    added = [new for index, (_, _, new) in enumerate(requests) if new is not None and index not in used]
    edit_master(options.directory, change, added)
    return 0


def _service(request: str) -> tuple[str, str]:
    name, _, kind = request.partition("/")
    return name, kind


def _three(request: str, complaint: str) -> tuple[str, str, str]:
    parts = request.split("/")
    if len(parts) != 3:
        raise UsageError(complaint)
    return parts[0], parts[1], parts[2]


def _edit_fields(options: Options) -> int:
    """-Fe."""
    changes: list[tuple[str, str, str, str]] = []
    for word in options.words:
        request, value = _pair(word)
        name, kind, field = _three(request, "-Fe or -FX requires service_name/type/field_name")
        if field not in FIELD_NAMES:
            raise UsageError(f'invalid service attribute name: "{field}"')
        fields = ["x", "unix", "-", "-", "-", "-", "-"]
        if field == "command":
            if not value:
                raise UsageError(f'bad command field: "{word}"')
        else:
            fields[FIELD_NAMES.index(field)] = value
        try:
            check_fields(tuple(fields), value)
        except ConfigError as error:
            raise UsageError(error.reason) from None
        changes.append((name, kind, field, value))

    def change(entry: MasterEntry) -> MasterEntry | str | None:
        found = entry
        for name, kind, field, value in changes:
            if matches(f"{name}/{kind}", entry.name, entry.type):
                found = _with_field(found, field, value)
        return found

    _warn_unmatched(options, [(name, kind) for name, kind, _, _ in changes])
    edit_master(options.directory, change)
    return 0


def _with_field(entry: MasterEntry, field: str, value: str) -> MasterEntry:
    if field == "command":
        return replace(entry, words=parse_entry(f"x unix - - - - - {value}").words)
    fields = list(entry.fields)
    fields[FIELD_NAMES.index(field)] = value
    return replace(entry, fields=tuple(fields))


def _edit_parameters(options: Options) -> int:
    """-Pe and -PX."""
    changes: list[tuple[str, str, str, str | None]] = []
    for word in options.words:
        request, value = _pair(word) if options.has("e") else (word.strip(), None)
        if options.has("e") and value is not None and any(character in word for character in " \t"):
            raise UsageError("-Pe does not accept whitespace in parameter value")
        changes.append((*_three(request, "-Pe or -PX requires service_name/type/parameter"), value))

    def change(entry: MasterEntry) -> MasterEntry | str | None:
        found = entry
        for name, kind, parameter, value in changes:
            if matches(f"{name}/{kind}", entry.name, entry.type):
                found = with_parameter(found, parameter, value)
        return found

    _warn_unmatched(options, [(name, kind) for name, kind, _, _ in changes])
    edit_master(options.directory, change)
    return 0


def with_parameter(entry: MasterEntry, name: str, value: str | None) -> MasterEntry:
    """The entry with `-o name=value` set in its place or after the other options; removed if `value` is None."""
    words = [entry.words[0]]
    rest = list(entry.words[1:])
    done = False
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word != "-o" or not rest:
            words.append(word)
            continue
        option = rest.pop(0)
        single = replace(entry, words=("x", "-o", option))
        if any(found == name for found, _ in entry_overrides(single)):
            if value is not None and not done:
                words += ["-o", f"{name}={value}"]
            done = True
        else:
            words += ["-o", option]
    if value is not None and not done:
        words += ["-o", f"{name}={value}"]
    return replace(entry, words=(*words, *rest))


def _warn_unmatched(options: Options, requests: list[tuple[str, str]]) -> None:
    _, _, entries = read_for_edit(options.directory)
    for word, (name, kind) in zip(options.words, requests, strict=True):
        if not any(matches(f"{name}/{kind}", entry.name, entry.type) for entry in entries):
            warn(f'unmatched service_name/type: "{word}"')
