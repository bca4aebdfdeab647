"""The names in Temporal's histories and clients are explicit, and do not change when the code is renamed."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests.house.source_tree import Module, SourceTree

WIRE_NAMES = {
    "workflow": {"Fire", "Guard", "Job", "Prove", "Sweep"},
    "activity": {
        "climb",
        "close",
        "decide_requests",
        "open_locks",
        "open_request",
        "prove_job",
        "revoke_credential",
        "revoke_job",
        "run_session",
        "sweep",
        "take_answers",
        "take_occasion",
        "take_place",
        "withdraw",
    },
    "signal": {"ask", "decide", "kill", "revoke_credential"},
    "query": {"view"},
}
"""A job that has waited for a week, or an old client, uses these. Add names; never rename or remove one."""
ERROR_TYPES = {"NotTheirs", "RequestLost"}
"""Histories contain these errors by class name, and workflows branch on them: renaming such a class would change a replay."""
KINDS = {
    "activity.defn": "activity",
    "workflow.defn": "workflow",
    "workflow.signal": "signal",
    "workflow.query": "query",
    "workflow.update": "update",
}


def wire_names(tree: SourceTree) -> dict[str, set[str]]:
    """Return the names under which the tree's handlers are registered, by kind. Raises ValueError for a decorator without an explicit name."""
    names: dict[str, set[str]] = defaultdict(set)
    for module in tree.modules:
        for node, decorator, kind in _handlers(module):
            names[kind] |= _names(tree, module, node, decorator)
    return dict(names)


def error_types(tree: SourceTree) -> set[str]:
    """Return the classes whose names workflows compare with an error's type."""
    return {
        node.value.id
        for module in tree.modules
        if module.path.startswith("workflows/")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr == "__name__" and isinstance(node.value, ast.Name)
    }


def _handlers(module: Module) -> Iterator[tuple[ast.AST, ast.expr, str]]:
    for node in [*module.classes, *(function.node for function in module.functions)]:
        for decorator in node.decorator_list:
            kind = KINDS.get(ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator).removeprefix("temporalio."))
            if kind:
                yield node, decorator, kind


def _names(tree: SourceTree, module: Module, node: ast.AST, decorator: ast.expr) -> set[str]:
    arguments = {keyword.arg: keyword.value for keyword in decorator.keywords} if isinstance(decorator, ast.Call) else {}
    if "dynamic" in arguments:
        return _names_compared(node)
    name = _text(tree, module, arguments["name"]) if "name" in arguments else None
    if name is None:
        message = f"{module.path}:{decorator.lineno}: the name is not explicit; add name=..."
        raise ValueError(message)
    return {name}


def _names_compared(node: ast.AST) -> set[str]:
    """Return the texts that a dynamic handler compares its first argument with."""
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    parameter = node.args.args[1].arg
    return {
        right.value
        for compare in ast.walk(node)
        if isinstance(compare, ast.Compare) and isinstance(compare.left, ast.Name) and compare.left.id == parameter
        for right in compare.comparators
        if isinstance(right, ast.Constant) and isinstance(right.value, str)
    }


def _text(tree: SourceTree, module: Module, node: ast.expr) -> str | None:
    """Return the text of an expression: a literal, or a constant of its own, an imported or another module. None for anything else."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id=name):
            origin, constant = _import_origin(module, name) or (module.name, name)
        case ast.Attribute(value=ast.Name(id=name), attr=constant):
            package, name = _import_origin(module, name) or ("", name)
            origin = f"{package}.{name}"
        case _:
            return None
    for other in tree.modules:
        for statement in other.tree.body if other.name == origin else ():
            if isinstance(statement, ast.Assign) and constant in map(ast.unparse, statement.targets):
                return _text(tree, other, statement.value)
    return None


def _import_origin(module: Module, name: str) -> tuple[str, str] | None:
    for node in module.imports:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return str(node.module), alias.name
    return None


def test_every_wire_name_is_explicit_and_unchanged(source: SourceTree) -> None:
    assert wire_names(source) == WIRE_NAMES


def test_no_error_that_a_workflow_branches_on_is_renamed(source: SourceTree) -> None:
    assert error_types(source) == ERROR_TYPES


@pytest.mark.parametrize(
    "lines",
    [
        "@activity.defn\ndef close(): ...",
        "@activity.defn()\ndef close(): ...",
        "class A:\n    @activity.defn\n    async def close(self): ...",
        "@workflow.defn\nclass Job: ...",
        "@workflow.defn(sandboxed=False)\nclass Job: ...",
        "class Job:\n    @workflow.signal\n    def kill(self): ...",
        "class Job:\n    @workflow.query\n    def view(self): ...",
        "class Job:\n    @workflow.update\n    def stop(self): ...",
        "@temporalio.activity.defn\ndef close(): ...",
        "@activity.defn(name=close_name())\ndef close(): ...",
    ],
)
def test_a_name_that_is_not_explicit_is_rejected(lines: str) -> None:
    with pytest.raises(ValueError, match="the name is not explicit"):
        wire_names(SourceTree.of({"activities/a.py": lines}))


@pytest.mark.parametrize(
    "lines,names",
    [
        ('@activity.defn(name="close")\ndef end(): ...', {"activity": {"close"}}),
        ('NAME = "close"\n@activity.defn(name=NAME)\ndef end(): ...', {"activity": {"close"}}),
        ("from justenough.names import CLOSE as NAME\n@activity.defn(name=NAME)\ndef end(): ...", {"activity": {"close"}}),
        ("from justenough import names\n@activity.defn(name=names.CLOSE)\ndef end(): ...", {"activity": {"close"}}),
        (
            "class Job:\n    @workflow.signal(dynamic=True)\n    def receive(self, name, args):\n        if name == 'decide' or name == 'kill': ...",
            {"signal": {"decide", "kill"}},
        ),
        (
            '@workflow.defn(name="Job")\nclass Work:\n    @workflow.query(name="view")\n    def state(self): ...',
            {"workflow": {"Job"}, "query": {"view"}},
        ),
    ],
)
def test_a_name_is_resolved_as_temporal_receives_it(lines: str, names: dict[str, set[str]]) -> None:
    assert wire_names(SourceTree.of({"activities/a.py": lines, "justenough/names.py": 'CLOSE = "close"\n'})) == names


def test_an_error_that_a_workflow_branches_on_is_found() -> None:
    lines = "def f(error):\n    return type_of(error) == NotOurs.__name__ or type(error).__name__\n"

    assert error_types(SourceTree.of({"workflows/a.py": lines, "activities/b.py": "Other.__name__"})) == {"NotOurs"}
