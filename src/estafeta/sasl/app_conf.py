"""``smtpd.conf``: what Cyrus SASL would read to know where passwords are and what to offer.

Source: SASL_README ("Configuring Cyrus SASL"), Cyrus SASL's options page. The file is ``$smtpd_sasl_path.conf``, looked for in
cyrus_sasl_config_path, else where Debian and the old tutorials put it. Lines are ``name: value``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from estafeta.sasl.sasldb import DEFAULT_PATH

PLACES = ("/etc/postfix/sasl", "/etc/sasl2", "/usr/lib/sasl2", "/usr/lib/sasl", "/usr/local/lib/sasl2", "/usr/local/lib/sasl")
SASLDB = "sasldb"
SASLAUTHD = "saslauthd"
_SASLAUTHD_PATH = "/run/saslauthd/mux"
_KNOWN = frozenset(("pwcheck_method", "auxprop_plugin", "sasldb_path", "mech_list", "saslauthd_path", "log_level"))


@dataclass(frozen=True, slots=True)
class AppConf:
    """``methods``: sasldb and saslauthd, in the order of asking. ``mechanisms``: None when the file says nothing."""

    path: str = ""
    methods: tuple[str, ...] = (SASLDB,)
    sasldb_path: str = DEFAULT_PATH
    saslauthd_path: str = _SASLAUTHD_PATH
    mechanisms: tuple[str, ...] | None = None
    log_level: int = 1
    warnings: tuple[str, ...] = field(default=())


def places(config_path: str, config_directory: str) -> list[str]:
    """Where to look; ``config_path`` is cyrus_sasl_config_path."""
    if config_path:
        return [part for part in config_path.split(":") if part]
    return list(dict.fromkeys((os.path.join(config_directory, "sasl"), *PLACES)))


def find(name: str, directories: Sequence[str]) -> str:
    """The path of NAME.conf, empty without one."""
    for directory in directories:
        path = os.path.join(directory, f"{name}.conf")
        if os.path.isfile(path):
            return path
    return ""


def load(name: str, directories: Sequence[str]) -> AppConf:
    """The settings of application ``name``; without a file the defaults. Raises OSError."""
    path = find(name, directories)
    if not path:
        return AppConf()
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return parse(file.read(), path)


def parse(text: str, path: str = "") -> AppConf:
    """Never raises: what cannot be used is in ``warnings``, and then is not used."""
    found: dict[str, str] = {}
    warnings: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon:
            warnings.append(f'{path}, line {number}: expected "name: value"')
            continue
        found[name.strip().lower()] = value.strip()
    plugins = found.get("auxprop_plugin", SASLDB).split()
    methods: list[str] = []
    for method in found.get("pwcheck_method", "auxprop").split():
        method = method.lower()
        if method == SASLAUTHD:
            methods.append(SASLAUTHD)
        elif method == SASLDB or (method == "auxprop" and SASLDB in plugins):
            methods.append(SASLDB)
        elif method == "auxprop":
            warnings.append(f"{path}: auxprop_plugin {' '.join(plugins)} is not implemented: use sasldb or saslauthd")
        else:
            warnings.append(f"{path}: pwcheck_method {method} is not implemented: use auxprop or saslauthd")
    for name in found:
        if name not in _KNOWN:
            warnings.append(f"{path}: unused parameter: {name}")
    level = found.get("log_level", "1")
    return AppConf(
        path=path,
        methods=tuple(dict.fromkeys(methods)),
        sasldb_path=found.get("sasldb_path") or DEFAULT_PATH,
        saslauthd_path=found.get("saslauthd_path") or _SASLAUTHD_PATH,
        mechanisms=tuple(found["mech_list"].upper().split()) if found.get("mech_list") else None,
        log_level=int(level) if level.isdigit() else 1,
        warnings=tuple(warnings),
    )
