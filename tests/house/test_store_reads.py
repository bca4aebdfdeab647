"""A method of the store that is marked `@reads` executes one statement: nothing would make a second one see the same snapshot."""

from __future__ import annotations

import ast
from collections.abc import Mapping

import pytest

from tests.house.source_tree import SourceTree

STORE = "justenough/adapters/store/"
LOOPS = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def store_functions(tree: SourceTree) -> dict[str, ast.AST]:
    """Return the store's functions, without its methods, by name."""
    return {
        function.node.name: function.node
        for module in tree.modules
        if module.path.startswith(STORE)
        for function in module.functions
        if function.class_name is None
    }


def methods_with_several_statements(tree: SourceTree) -> list[str]:
    """Return the methods marked `@reads` that may execute more than one statement."""
    helpers = store_functions(tree)
    return [
        f"{module.path}:{function.node.lineno} {function.node.name}"
        for module in tree.modules
        if module.path.startswith(STORE)
        for function in module.functions
        if "reads" in map(ast.unparse, function.node.decorator_list) and not executes_once(function.node, helpers)
    ]


def executes_once(function: ast.AST, helpers: Mapping[str, ast.AST]) -> bool:
    """Whether a function uses its connection once and not in a loop: to execute, or to call a helper that does."""
    uses = [node for node in ast.walk(function) if isinstance(node, ast.Name) and node.id == "connection"]
    repeated = (part for loop in ast.walk(function) if isinstance(loop, LOOPS) for part in repeated_parts(loop))
    if len(uses) != 1 or any(uses[0] in ast.walk(part) for part in repeated):
        return False
    for call in ast.walk(function):
        match call:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="connection"), attr="execute")):
                return True
            case ast.Call(func=ast.Name(id=name), args=[ast.Name(id="connection"), *_]):
                return name in helpers and executes_once(helpers[name], helpers)
    return False


def repeated_parts(loop: ast.AST) -> list[ast.AST]:
    """Return the parts of a loop that may run more than once: all except the iterable."""
    match loop:
        case ast.For():
            return [*loop.body, *loop.orelse]
        case ast.While():
            return [loop]
        case ast.DictComp():
            return [loop.key, loop.value, *loop.generators[1:]]
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
            return [loop.elt, *loop.generators[1:]]
    return []


def test_every_read_without_a_snapshot_executes_one_statement(source: SourceTree) -> None:
    assert methods_with_several_statements(source) == []
    reads = [
        function for module in source.modules for function in module.functions if "reads" in map(ast.unparse, function.node.decorator_list)
    ]
    assert len(reads) > 40


@pytest.mark.parametrize(
    "lines",
    [
        "return connection.execute(A).all() + connection.execute(B).all()",
        "return [connection.execute(a).all() for a in self.parts]",
        "for a in self.parts: connection.execute(a)",
        "while True: connection.execute(A)",
        "return twice(connection)",
        "return unknown(connection)",
        "return partial(once, connection)",
    ],
)
def test_a_read_that_may_execute_several_statements_is_found(lines: str) -> None:
    helpers = (
        "def once(connection): return connection.execute(A)\ndef twice(connection): return connection.execute(A), connection.execute(B)\n"
    )
    text = f"{helpers}class Jobs:\n    @reads\n    def get(self, connection):\n        {lines}\n"
    assert methods_with_several_statements(SourceTree.of({f"{STORE}jobs.py": text})) == [f"{STORE}jobs.py:5 get"]


@pytest.mark.parametrize(
    "lines", ["return connection.execute(A).all()", "return once(connection)", "return [a for a in connection.execute(A)]"]
)
def test_a_read_of_one_statement_is_accepted(lines: str) -> None:
    text = f"def once(connection): return connection.execute(A)\nclass Jobs:\n    @reads\n    def get(self, connection):\n        {lines}\n"
    assert methods_with_several_statements(SourceTree.of({f"{STORE}jobs.py": text})) == []
