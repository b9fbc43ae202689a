"""The command line of postconf: options, and which of them exclude one another.

Source: postconf(1), SYNOPSIS.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from estafeta.config.main_cf import default_directory

_USAGE = (
    "usage: postconf [-a (server SASL types)] [-A (client SASL types)] [-b (bounce templates)] [-c config_dir] "
    "[-c param_class] [-d (parameter defaults)] [-e (edit configuration)] [-f (fold lines)] [-F (master.cf fields)] "
    "[-h (no names)] [-H (no values)] [-l (lock types)] [-m (map types)] [-M (master.cf)] "
    "[-n (non-default parameters)] [-o name=value (override parameter value)] [-p (main.cf, default)] "
    "[-P (master.cf parameters)] [-t (bounce templates)] "
    "[-T compile-version|run-version|public-key-algorithms] [-v (verbose)] [-x (expand parameter values)] "
    "[-X (exclude)] [-# (comment-out)] [name...]"
)
_FLAGS = frozenset("aAbdefFhHlmMnpPtvxX#")
_WITH_VALUE = frozenset("cCoT")
_CLASSES = {"builtin": {"builtin"}, "service": {"service"}, "user": {"user"}, "all": {"builtin", "service", "user"}}

# Which options (besides c and v, which go with all) go with what is shown; measured on Postfix 3.7.
_ALLOWED = {
    "main": frozenset("pdefhHnoxCX#"),
    "M": frozenset("efoxX#"),
    "F": frozenset("efhHox"),
    "P": frozenset("efhHoxX"),
}


class UsageError(Exception):
    """The command line makes no sense; one line."""


@dataclass(slots=True)
class Options:
    """The parsed command line. `mode` is "main", "M", "F", "P", or one of the lists a A b l m t T."""

    flags: set[str] = field(default_factory=set)
    mode: str = "main"
    directory: str = ""
    directory_given: bool = False
    classes: set[str] = field(default_factory=lambda: set(_CLASSES["all"]))
    overrides: list[tuple[str, str]] = field(default_factory=list)
    tls_mode: str = ""
    words: list[str] = field(default_factory=list)

    def has(self, flag: str) -> bool:
        """Whether the one-letter option was given."""
        return flag in self.flags

    @property
    def editing(self) -> bool:
        """Whether the configuration is to be changed."""
        return bool(self.flags & {"e", "X", "#"})


def parse_options(argv: list[str]) -> Options:
    """Read the command line. Raises UsageError."""
    options = Options(directory=default_directory())
    import os

    options.directory_given = bool(os.environ.get("MAIL_CONFIG"))
    words = iter(argv)
    for word in words:
        if word == "--":
            options.words += list(words)
        elif len(word) > 1 and word[0] == "-":
            _cluster(word, words, options)
        else:
            options.words.append(word)
    _settle(options)
    return options


def _cluster(word: str, words: object, options: Options) -> None:
    for index, flag in enumerate(word[1:], 1):
        if flag in _FLAGS:
            options.flags.add(flag)
        elif flag in _WITH_VALUE:
            value = word[index + 1 :] or next(words, None)  # type: ignore[call-overload]
            if value is None:
                raise UsageError(_USAGE)
            _valued(flag, value, options)
            return
        else:
            raise UsageError(_USAGE)


def _valued(flag: str, value: str, options: Options) -> None:
    options.flags.add(flag)
    if flag == "c":
        options.directory, options.directory_given = value, True
    elif flag == "C":
        options.classes = set()
        for name in value.replace(",", " ").split():
            if name not in _CLASSES:
                raise UsageError(f'unknown -C option value "{name}" in "{value}"')
            options.classes |= _CLASSES[name]
    elif flag == "o":
        name, equals, text = value.partition("=")
        if not equals:
            raise UsageError(f"invalid parameter override: {value}: missing '=' after attribute name")
        if not name.strip():
            raise UsageError(f"invalid parameter override: {value}: missing attribute name")
        options.overrides.append((name.strip(), text.strip()))
    else:
        options.tls_mode = value


def _settle(options: Options) -> None:
    for pair in ("dn", "do", "hH", "eX", "e#", "X#", "de", "dX", "d#"):
        if options.has(pair[0]) and options.has(pair[1]):
            raise UsageError(f"specify one of -{pair[0]} -{pair[1]}")
    modes = [flag for flag in "aAblmMFPtT" if options.has(flag)]
    if len(modes) > 1:
        raise UsageError(f"specify one of -{modes[0]} -{modes[1]}")
    if modes:
        options.mode = modes[0]
    allowed = _ALLOWED.get(options.mode, frozenset("e"))
    for flag in sorted(options.flags - {options.mode, "c", "v"}):
        if flag not in allowed:
            raise UsageError(f"with option -{options.mode}, do not specify -{flag}")
    if options.mode in _ALLOWED and any("=" in word for word in options.words):
        for flag in ("X", "#", "d", "n"):
            if options.has(flag):
                raise UsageError(f"specify one of -e -{flag}")
        options.flags.add("e")
    if options.editing and not options.words:
        raise UsageError("-e requires name=value argument" if options.has("e") else "missing service argument")
