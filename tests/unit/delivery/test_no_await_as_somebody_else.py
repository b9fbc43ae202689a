"""No ``await`` (nor yield) inside ``with become(...)`` or ``with act_as(...)``, in all of the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import estafeta

NAMES = {"become", "act_as"}
SOURCE = Path(estafeta.__file__).parent


def offences(tree: ast.AST) -> list[int]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.With | ast.AsyncWith) and any(_is_identity(item.context_expr) for item in node.items):
            for inner in (part for statement in node.body for part in ast.walk(statement)):
                if isinstance(inner, ast.Await | ast.Yield | ast.YieldFrom | ast.AsyncFor | ast.AsyncWith):
                    found.append(inner.lineno)
    return found


def _is_identity(expression: ast.expr) -> bool:
    if not isinstance(expression, ast.Call):
        return False
    function = expression.func
    return (function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")) in NAMES


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_source(path: Path) -> None:
    assert offences(ast.parse(path.read_text())) == []


def test_the_check_itself() -> None:
    assert offences(ast.parse("async def f():\n with open(x), act_as(1, 2):\n  if y:\n   await z\n")) == [4]
    assert offences(ast.parse("def f():\n with a.become(1, 2):\n  yield\n")) == [3]
