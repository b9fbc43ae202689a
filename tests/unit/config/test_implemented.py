"""config/implemented.py says which parameters the programs read; here the source says it, and the two must agree."""

from __future__ import annotations

import ast
from pathlib import Path

import estafeta
from estafeta.config.implemented import IMPLEMENTED, IMPLEMENTED_SUFFIXES, is_implemented
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


# Names that the source puts together: f"smtpd_{stage}_restrictions".
COMPOSED = {f"smtpd_{stage}_restrictions" for stage in ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data", "etrn")}


def _read_in_source() -> tuple[set[str], set[str]]:
    """Every parameter name, and every suffix of a transport's parameters, that stands in the programs as a string."""
    names: set[str] = set()
    suffixes: set[str] = set()
    known = parameters()
    for path in ROOT.rglob("*.py"):
        room = path.relative_to(ROOT).parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found = [node] if isinstance(node, ast.Constant) and room != "config" else []
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in READERS:
                found += [argument for argument in node.args if isinstance(argument, ast.Constant)]
            for constant in found:
                text = constant.value
                if isinstance(text, str) and text in known:
                    names.add(text)
                if room != "config" and f"_{text}" in TRANSPORT_SUFFIXES | {TIME_LIMIT_SUFFIX: ("", "")}:
                    suffixes.add(f"_{text}")
    return names, suffixes


def test_what_is_read_is_listed() -> None:
    names, suffixes = _read_in_source()
    assert sorted(names - IMPLEMENTED - OWN) == [], "add these names to config/params/implemented.txt"
    assert sorted(suffixes - IMPLEMENTED_SUFFIXES) == [], "add these to IMPLEMENTED_SUFFIXES"


def test_what_is_listed_is_read() -> None:
    texts = [path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py") if path.name not in ("implemented.py", "legacy.py")]
    source = "\n".join(texts)
    assert '_restrictions")' in source, "COMPOSED is no longer true"
    unread = [
        name
        for name in sorted(IMPLEMENTED - OWN - COMPOSED)
        if f'"{name}"' not in source
        and f"${name}" not in source
        and not (name.startswith("default_") and name.removeprefix("default") in IMPLEMENTED_SUFFIXES)
    ]
    assert unread == [], "nothing reads these: take them out of config/params/implemented.txt"


def test_milters_are_named_as_missing() -> None:
    for name in ("smtpd_milters", "milter_default_action"):
        assert not is_implemented(name), name


def test_transports_own_parameters() -> None:
    assert is_implemented("relay_destination_concurrency_limit")
    assert not is_implemented("relay_destination_something")


def test_listed_names_exist() -> None:
    assert sorted(IMPLEMENTED - set(parameters())) == []
