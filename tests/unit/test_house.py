"""The house rules that a program can check: sizes, empty packages, and nobody asleep on the path of a task."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "endpoint"
LONGEST_MODULE = 400
LONGEST_FUNCTION = 60
TASK_PATH = ("amqp", "engines", "user", "wire", "worker")


def modules() -> list[Path]:
    found = sorted(PACKAGE.rglob("*.py"))
    assert len(found) > 50
    return found


def functions(module: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_no_module_outgrows_its_idea():
    assert [str(m) for m in modules() if m.read_text().count("\n") > LONGEST_MODULE] == []


def test_no_function_is_longer_than_a_screen():
    long = [
        f"{module.name}: {function.name}"
        for module in modules()
        for function in functions(module)
        if function.end_lineno - function.lineno >= LONGEST_FUNCTION
    ]
    assert long == []


def test_packages_load_nothing_by_themselves():
    assert [str(m) for m in modules() if m.name == "__init__.py" and m.read_text()] == []


@pytest.mark.parametrize("folder", TASK_PATH)
def test_nothing_on_the_path_of_a_task_sleeps(folder):
    called = [
        f"{module}:{node.lineno}"
        for module in (PACKAGE / folder).rglob("*.py")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "sleep"
    ]
    assert called == []
