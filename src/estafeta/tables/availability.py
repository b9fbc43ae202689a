"""Which tables that main.cf names cannot be opened: said by `postfix check` and in the log at start, with the remedy.

Source: postconf(5), DATABASE_README. A table that is missing is no reason to keep the system down (mail that needs it waits, and
the table is noticed when it comes), so these are warnings. Tables are closed again: the master forks.
"""

from __future__ import annotations

from estafeta.config.config import Config
from estafeta.config.errors import ConfigError, ConfigProblem
from estafeta.config.implemented import is_implemented
from estafeta.config.registry import parameters
from estafeta.tables.open import INDEXED, open_table, split_spec
from estafeta.tables.table import OpenOptions, TableError

_NOT_OPENED = ("proxy_", "alias_database")  # patterns, and what postalias makes


def table_problems(config: Config) -> list[ConfigProblem]:
    """A warning for each table of a `*_maps` parameter that cannot be opened now."""
    found: list[ConfigProblem] = []
    for name, parameter in parameters().items():
        if not (parameter.builtin and name.endswith("_maps")) or name.startswith(_NOT_OPENED) or not is_implemented(name):
            continue
        if not config.is_set(name) and name != "alias_maps":
            continue  # the defaults of the others repeat it
        try:
            specs = config.words(name)
        except ConfigError:
            continue  # reported with its own line already
        setting = config.setting(name)
        line = setting.line if setting else 0
        for spec in specs:
            if ":" in spec:
                found += [
                    ConfigProblem("warning", config.path, line, f"parameter {name}: {text}")
                    for text in _complaints(spec, name, config)
                ]
    return list(dict.fromkeys(found))


def _complaints(spec: str, parameter: str, config: Config) -> list[str]:
    said: list[str] = []
    try:
        open_table(spec, OpenOptions(warn=said.append, parameter=config.lookup)).close()
    except TableError as error:
        return [*said, f"{spec} is unavailable: {error}{_remedy(spec, parameter)}"]
    return [text.replace("run postmap", "run postalias") if parameter == "alias_maps" else text for text in said]


def _remedy(spec: str, parameter: str) -> str:
    kind, name = split_spec(spec.removeprefix("proxy:"))
    if kind not in INDEXED:
        return ""
    return f" (make it with: {'postalias' if parameter == 'alias_maps' else 'postmap'} {kind}:{name})"
