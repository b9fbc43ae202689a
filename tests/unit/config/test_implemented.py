"""config/implemented.py says which parameters the programs read; here the source says it, and the two must agree."""

from __future__ import annotations

import ast
from pathlib import Path

import estafeta
from estafeta.config.implemented import IMPLEMENTED, IMPLEMENTED_SUFFIXES
from estafeta.config.registry import TIME_LIMIT_SUFFIX, TRANSPORT_SUFFIXES, parameters

ROOT = Path(estafeta.__file__).parent
READERS = {"get", "bool", "int", "size", "seconds", "words", "raw", "transport", "lookup", "is_set"}
# Parameters whose value postconf, the registry or the configuration room itself acts on.
OWN = {
    "compatibility_level",
    "config_directory",
    "mydomain",
    "mynetworks_style",
    "process_id",
    "process_name",
    "service_name",
    "stress",
}


def _read_in_source() -> tuple[set[str], set[str]]:
    names: set[str] = set()
    suffixes: set[str] = set()
    known = parameters()
    for path in ROOT.rglob("*.py"):
        outside = "config" not in path.relative_to(ROOT).parts[:1]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr not in READERS:
                continue
            for argument in node.args:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    if argument.value in known:
                        names.add(argument.value)
                    if outside and f"_{argument.value}" in TRANSPORT_SUFFIXES | {TIME_LIMIT_SUFFIX: ("", "")}:
                        suffixes.add(f"_{argument.value}")
    return names, suffixes


def test_what_is_read_is_listed() -> None:
    names, suffixes = _read_in_source()
    assert sorted(names - IMPLEMENTED - OWN) == [], "add these names to config/implemented.py"
    assert sorted(suffixes - IMPLEMENTED_SUFFIXES) == [], "add these to IMPLEMENTED_SUFFIXES"


def test_what_is_listed_is_read() -> None:
    texts = [
        path.read_text(encoding="utf-8")
        for path in ROOT.rglob("*.py")
        if path.name not in ("implemented.py", "legacy.py")
    ]
    source = "\n".join(texts)
    unread = [name for name in sorted(IMPLEMENTED - OWN) if f'"{name}"' not in source and f"${name}" not in source]
    assert unread == [], "nothing reads these: take them out of config/implemented.py"


def test_listed_names_exist() -> None:
    assert sorted(IMPLEMENTED - set(parameters())) == []
