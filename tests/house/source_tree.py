"""Measures the names and the structure of the product's source. `python -m tests.house.source_tree --help` shows how to list the places.

The house tests limit these figures. Everything is read from the syntax trees; no product code is imported.
"""

from __future__ import annotations

import argparse
import ast
import gc
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
PACKAGES = ("justenough", "workflows", "activities", "worker", "console", "sdk/justenough_job")
NOT_OURS_TO_NAME = {"migrations"}
"""Alembic chooses the names of these files and of their functions `upgrade` and `downgrade`."""
LONG = 400
"""A file with more lines must say why it is long."""
LONG_BECAUSE = re.compile(rf"^Over {LONG} lines: \S.{{20,}}", re.MULTILINE)
"""The line in a long module's docstring that gives the reason."""


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


IRREGULAR_PARTICIPLES = words(
    "told seen shown held kept given taken made done gone sent said written found known had left lost put owed "
    "begun born bought broken brought built caught chosen drawn driven fallen foreseen forgotten frozen grown heard hidden laid lent meant "
    "met overtaken paid proven resent sold spent spoken stood stuck swept thrown torn withheld woken"
)
NO_PARTICIPLES = words(
    # These are not participles, but have the same endings.
    "bed bleed breed bring during embed evening exceed feed hundred indeed king morning need ping proceed red ring seed shed sibling "
    "sing speed sting string succeed swing thing nothing something anything everything weed wing "
    # Nouns of the field without a better word.
    "ceiling finding heading pending setting warning"
)
PARTICLES = words(
    "about above after again ago alike alone already also and anew apart as aside at away back before below beside between beyond both by "
    "down due early else elsewhere enough ever first for from here if in into it last late lately later less longer more most never no none not "
    "now of off often on once only or otherwise out over past since so still than that them then there through till to together too twice "
    "under until up upon well when where whether while why with within without yet"
)
"""Words that are not described by a participle before them: `taken_back` says no more than `taken`, while `granted_tools` names tools."""

GERUNDS_OF_THE_FIELD = {
    "caching": "the general word for storing responses for some time",
    "issuing": "what certificate authorities call creating credentials",
    "metering": "what LLM gateways and billing call counting usage",
    "paging": "what databases and APIs call reading in pages",
    "provisioning": "what users of Vault and Terraform call creating mounts, roles and policies",
    "rendering": "what template engines do",
    "rightsizing": "what cloud providers call matching a grant or machine to its use",
    "routing": "what web frameworks call finding the handler of a path",
}
"""Module names that end in -ing and are nouns of the field, each with its reason."""


@dataclass(frozen=True)
class Place:
    """A named place in a file."""

    path: str
    line: int
    name: str

    def __str__(self) -> str:
        """Return the place in the form that editors open."""
        return f"{self.path}:{self.line} {self.name}"


@dataclass(frozen=True)
class Function:
    """A function or method, its class, and whether it is nested in a function."""

    node: ast.FunctionDef | ast.AsyncFunctionDef
    class_name: str | None
    is_nested: bool

    @property
    def is_private(self) -> bool:
        """Whether its name begins with one underscore."""
        return self.node.name.startswith("_") and not self.node.name.startswith("__")

    @property
    def is_boolean_property(self) -> bool:
        """Whether it is a property of type bool, for which a participle is a good name."""
        decorators = {
            decorator.attr if isinstance(decorator, ast.Attribute) else getattr(decorator, "id", "")
            for decorator in self.node.decorator_list
        }
        returns = self.node.returns
        return bool(decorators & {"property", "cached_property"}) and isinstance(returns, ast.Name) and returns.id == "bool"


@dataclass(frozen=True)
class Use:
    """A place that reads a private name."""

    name: str
    through_self: str | None
    """The class whose `self` or `cls` is the receiver; None for a bare name and for any other receiver."""
    is_attribute: bool
    within: frozenset[int]
    """The enclosing functions, by the id of their nodes."""


@dataclass(frozen=True)
class Import:
    """One import of a module by another."""

    importer: str
    imported: str
    place: Place


@dataclass
class Module:
    """One source file, read once."""

    path: str
    text: str = field(repr=False)
    tree: ast.Module = field(init=False, repr=False)
    classes: list[ast.ClassDef] = field(init=False, repr=False, default_factory=list)
    functions: list[Function] = field(init=False, repr=False, default_factory=list)
    uses: list[Use] = field(init=False, repr=False, default_factory=list)
    imports: list[ast.Import | ast.ImportFrom] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        """Parse the file and collect what the checks need."""
        self.tree = ast.parse(self.text, self.path)
        self._collect(self.tree, class_name=None, functions=())

    @property
    def name(self) -> str:
        """The dotted name; that of a package's own module ends in `.__init__`."""
        path = PurePosixPath(self.path).relative_to("sdk") if self.path.startswith("sdk/") else PurePosixPath(self.path)
        return ".".join(path.with_suffix("").parts)

    @property
    def lines(self) -> int:
        """The number of lines."""
        return self.text.count("\n")

    def _collect(self, node: ast.AST, *, class_name: str | None, functions: tuple[ast.AST, ...]) -> None:
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.ClassDef():
                    self.classes.append(child)
                    self._collect(child, class_name=child.name, functions=functions)
                    continue
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    self.functions.append(
                        Function(child, class_name if isinstance(node, ast.ClassDef) else None, is_nested=bool(functions))
                    )
                    self._collect(child, class_name=class_name, functions=(*functions, child))
                    continue
                case ast.Name(id=name, ctx=ast.Load()) if name.startswith("_"):
                    self.uses.append(Use(name, None, is_attribute=False, within=frozenset(map(id, functions))))
                case ast.Attribute(attr=name, value=receiver) if name.startswith("_"):
                    through = class_name if isinstance(receiver, ast.Name) and receiver.id in {"self", "cls", class_name} else None
                    self.uses.append(Use(name, through, is_attribute=True, within=frozenset(map(id, functions))))
                case ast.Import() | ast.ImportFrom():
                    self.imports.append(child)
                case _:
                    pass
            self._collect(child, class_name=class_name, functions=functions)


@dataclass(frozen=True)
class SourceTree:
    """The source files of the product, or some of them."""

    modules: tuple[Module, ...] = field(repr=False)

    @classmethod
    def of(cls, files: Mapping[str, str]) -> SourceTree:
        """Return the tree of these files; `files` maps paths to texts."""
        return cls(tuple(Module(path, text) for path, text in sorted(files.items())))

    @classmethod
    def read(cls, root: Path = ROOT) -> SourceTree:
        """Return the tree of the product's files on disk."""
        paths = [path for package in PACKAGES for path in (root / package).rglob("*.py") if not NOT_OURS_TO_NAME & set(path.parts)]
        # All of the 400,000 nodes stay alive: collecting garbage among them costs twice as much as creating them.
        gc.disable()
        try:
            return cls.of({path.relative_to(root).as_posix(): path.read_text() for path in paths})
        finally:
            gc.enable()

    # Classes

    @cached_property
    def common_class_names(self) -> dict[str, list[Place]]:
        """Names of more than one class, the most frequent first, each with its places."""
        places = defaultdict(list)
        for module in self.modules:
            for node in module.classes:
                places[node.name].append(Place(module.path, node.lineno, node.name))
        return {name: same for name, same in sorted(places.items(), key=lambda item: (-len(item[1]), item[0])) if len(same) > 1}

    # Modules

    @cached_property
    def participle_modules(self) -> list[Place]:
        """Modules and packages named by a gerund or participle alone, unless it is a noun of the field."""
        paths = {module.path for module in self.modules}
        folders = {parent.as_posix() for path in paths for parent in PurePosixPath(path).parents}
        names = [(path, PurePosixPath(path).stem.strip("_")) for path in sorted(paths | folders)]
        return [Place(path, 1, name) for path, name in names if is_participle(name) and name not in GERUNDS_OF_THE_FIELD]

    @cached_property
    def long_modules(self) -> list[Place]:
        """Modules of more than LONG lines, the longest first."""
        modules = sorted((module for module in self.modules if module.lines > LONG), key=lambda module: -module.lines)
        return [Place(module.path, module.lines, "is explained" if is_explained(module) else "UNEXPLAINED") for module in modules]

    @property
    def modules_without_reason(self) -> list[Place]:
        """Long modules whose docstring does not say why."""
        return [place for place in self.long_modules if place.name == "UNEXPLAINED"]

    # Functions

    @cached_property
    def functions(self) -> list[tuple[Module, Function]]:
        """Every function, method and nested function."""
        return [(module, function) for module in self.modules for function in module.functions]

    @cached_property
    def participle_functions(self) -> list[Place]:
        """Functions named by a participle, except properties of type bool."""
        return [
            Place(module.path, function.node.lineno, function.node.name)
            for module, function in self.functions
            if is_named_by_participle(function.node.name) and not function.is_boolean_property
        ]

    @cached_property
    def single_use_helpers(self) -> list[Place]:
        """Private functions and methods with exactly one use outside themselves."""
        return [
            Place(module.path, function.node.lineno, _full_name(function))
            for module, function in self.functions
            if function.is_private and not function.is_nested and len(self._uses_of(module, function)) == 1
        ]

    def percent(self, places: list[Place]) -> float:
        """Return the share of these in all functions, in percent with one decimal."""
        return round(100 * len(places) / max(1, len(self.functions)), 1)

    def _uses_of(self, module: Module, function: Function) -> list[Use]:
        name, own = function.node.name, id(function.node)
        uses = [use for use in self._uses_by_name[name] if own not in use[1].within]
        if function.class_name is None:
            imports = [Use(name, None, is_attribute=False, within=frozenset())] * self._private_imports[f"{module.name}.{name}"]
            return [use for where, use in uses if where is module and not use.is_attribute] + imports
        return [use for where, use in uses if use.is_attribute and self._may_reach(where, use, module, function)]

    def _may_reach(self, where: Module, use: Use, module: Module, function: Function) -> bool:
        """Whether this use may be of this method. If the receiver is `self`, its class must define or inherit the method."""
        if use.through_self is None:
            return where is module or function.node.name not in self._private_names[where.path]
        return self._owner(where, use.through_self, function.node.name) == (module.path, function.class_name)

    def _owner(self, module: Module, class_name: str, name: str) -> tuple[str, str] | None:
        """Return the file and name of the class that defines a method of this name, if the tree has it."""
        seen, waiting = set(), [(module.path, class_name)]
        while waiting:
            path, current = waiting.pop(0)
            candidates = self._class_nodes.get((path, current)) or [
                node for (_, other), nodes in self._class_nodes.items() if other == current for node in nodes
            ]
            for where, node in candidates:
                if (where, current) in seen:
                    continue
                seen.add((where, current))
                if any(isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and item.name == name for item in node.body):
                    return where, current
                waiting += [(where, base) for base in map(_last_name, node.bases) if base]
        return None

    @cached_property
    def _class_nodes(self) -> dict[tuple[str, str], list[tuple[str, ast.ClassDef]]]:
        nodes = defaultdict(list)
        for module in self.modules:
            for node in module.classes:
                nodes[module.path, node.name].append((module.path, node))
        return dict(nodes)

    @cached_property
    def _uses_by_name(self) -> dict[str, list[tuple[Module, Use]]]:
        uses = defaultdict(list)
        for module in self.modules:
            for use in module.uses:
                uses[use.name].append((module, use))
        return uses

    @cached_property
    def _private_names(self) -> dict[str, set[str]]:
        return {module.path: {function.node.name for function in module.functions if function.is_private} for module in self.modules}

    @cached_property
    def _private_imports(self) -> Counter[str]:
        return Counter(
            f"{node.module}.{alias.name}"
            for module in self.modules
            for node in module.imports
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        )

    # Imports

    @cached_property
    def imports(self) -> list[Import]:
        """Every import of a module of this tree by another, those inside functions and for types too."""
        names = {module.name for module in self.modules}
        return [
            Import(module.name, imported, Place(module.path, node.lineno, imported))
            for module in self.modules
            for node in module.imports
            for target in _targets(node)
            if (imported := _resolve(target, names)) is not None and imported != module.name
        ]

    @cached_property
    def cycles(self) -> dict[str, list[frozenset[str]]]:
        """The import cycles among the children (subpackages and modules) of each package, by package; "" is the top level."""
        graphs: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for item in self.imports:
            parent, importer, imported = _split_paths(item.importer, item.imported)
            graphs[parent][importer].add(imported)
        cycles = {parent: [knot for knot in knots(graph) if len(knot) > 1] for parent, graph in sorted(graphs.items())}
        return {parent: nodes for parent, nodes in cycles.items() if nodes}

    @property
    def cycle_members(self) -> list[str]:
        """Every package and module in an import cycle with its siblings."""
        return sorted(f"{parent}.{child}".lstrip(".") for parent, nodes in self.cycles.items() for knot in nodes for child in knot)

    def imports_within(self, parent: str, knot: frozenset[str]) -> Iterator[tuple[str, str, Place]]:
        """Yield the imports in a cycle: the importing child, the imported child, and the place."""
        for item in self.imports:
            package, importer, imported = _split_paths(item.importer, item.imported)
            if package == parent and {importer, imported} <= knot:
                yield importer, imported, item.place


def is_participle(word: str) -> bool:
    """Whether one lower-case word is a gerund or a participle."""
    if word in NO_PARTICIPLES:
        return False
    return word.removeprefix("un") in IRREGULAR_PARTICIPLES or re.fullmatch(r"[a-z]{2,}(?:ed|ing)", word) is not None


def is_named_by_participle(name: str) -> bool:
    """Whether a function's name is a participle, alone or with a particle after it."""
    first, *others = [word for word in name.lower().split("_") if word] or [""]
    return is_participle(first) and PARTICLES.issuperset(others[:1])


def is_explained(module: Module) -> bool:
    """Whether a module's docstring says why the module is long."""
    return LONG_BECAUSE.search(ast.get_docstring(module.tree) or "") is not None


def knots(graph: Mapping[str, Iterable[str]]) -> list[frozenset[str]]:
    """Return the strongly connected components of a graph (Tarjan's algorithm), single nodes included."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    components: list[frozenset[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in order:
                visit(target)
                lowest[node] = min(lowest[node], lowest[target])
            elif target in stack:
                lowest[node] = min(lowest[node], order[target])
        if lowest[node] == order[node]:
            start = stack.index(node)
            components.append(frozenset(stack[start:]))
            del stack[start:]

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return components


def _targets(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names]


def _resolve(target: str, names: set[str]) -> str | None:
    """Return the module of the tree that a dotted name names or is defined in."""
    for candidate in (target, target.rpartition(".")[0]):
        if candidate in names:
            return candidate
        if f"{candidate}.__init__" in names:
            return f"{candidate}.__init__"
    return None


def _split_paths(importer: str, imported: str) -> tuple[str, str, str]:
    """Return the innermost package of both modules, and its child that each belongs to."""
    left, right = importer.split("."), imported.split(".")
    depth = next(index for index, (first, second) in enumerate(zip(left, right, strict=False)) if first != second)
    return ".".join(left[:depth]), left[depth], right[depth]


def _full_name(function: Function) -> str:
    return f"{function.class_name}.{function.node.name}" if function.class_name else function.node.name


def _last_name(node: ast.expr) -> str | None:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(value=value):
            return _last_name(value)
        case _:
            return None


# The command


def main(arguments: list[str] | None = None) -> None:
    """Print the current figures, or the lists that the options select."""
    options = _parser().parse_args(arguments)
    tree = SourceTree.read()

    def below(places: Iterable[Place]) -> list[Place]:
        return [place for place in places if place.path.startswith(tuple(options.prefix) or "")]

    lists: dict[str, Callable[[], Iterable[object]]] = {
        "classes": lambda: _classes(tree, below),
        "modules": lambda: below(tree.participle_modules),
        "participles": lambda: below(tree.participle_functions),
        "helpers": lambda: below(tree.single_use_helpers),
        "long": lambda: below(tree.long_modules),
        "cycles": lambda: _cycles(tree, below),
    }
    selected = [lines for name, lines in lists.items() if getattr(options, name)] or [lambda: _figures(tree, below, options.top)]
    for lines in selected:
        print(*lines(), sep="\n")  # noqa: T201 - the command prints


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.house.source_tree", description="Without an option: the figures, and the worst folders."
    )
    parser.add_argument("prefix", nargs="*", help="only files below these paths, e.g. console/api justenough/domain/policy")
    parser.add_argument("--classes", action="store_true", help="class names that several classes share, with their places")
    parser.add_argument("--modules", action="store_true", help="modules and packages named by a bare gerund or participle")
    parser.add_argument("--participles", action="store_true", help="functions named by a participle")
    parser.add_argument("--helpers", action="store_true", help="private functions and methods with exactly one use")
    parser.add_argument("--long", action="store_true", help=f"files over {LONG} lines, and whether their docstring says why")
    parser.add_argument(
        "--cycles", action="store_true", help="import cycles among the children of a package, with the imports that make them"
    )
    parser.add_argument("--top", type=int, default=10, help="how many folders the summary names for each figure (10)")
    return parser


def _classes(tree: SourceTree, below: Callable[[Iterable[Place]], list[Place]]) -> Iterator[str]:
    for name, places in tree.common_class_names.items():
        if below(places):
            yield f"{name} x{len(places)}: " + ", ".join(f"{place.path}:{place.line}" for place in places)


def _cycles(tree: SourceTree, below: Callable[[Iterable[Place]], list[Place]]) -> Iterator[str]:
    for parent, nodes in tree.cycles.items():
        for knot in nodes:
            edges = defaultdict(list)
            for importer, imported, place in tree.imports_within(parent, knot):
                edges[importer, imported].append(place)
            if below(place for places in edges.values() for place in places):
                yield f"{parent or 'top'}: {', '.join(sorted(knot))}"
                yield from (
                    f"  {importer} -> {imported}: {len(places)}, e.g. {places[0]}" for (importer, imported), places in sorted(edges.items())
                )


def _figures(tree: SourceTree, below: Callable[[Iterable[Place]], list[Place]], top: int) -> Iterator[str]:
    shared = below(place for places in tree.common_class_names.values() for place in places)
    total = len(below(Place(module.path, function.node.lineno, function.node.name) for module, function in tree.functions))
    yield f"modules {len(below(Place(module.path, 1, module.name) for module in tree.modules))}, functions {total}"
    for title, places, percents in (
        ("classes that share their name", shared, False),
        ("modules named by a gerund or participle", below(tree.participle_modules), False),
        ("functions named by a participle", below(tree.participle_functions), True),
        ("private helpers with one use", below(tree.single_use_helpers), True),
        (f"files over {LONG} lines that do not say why", below(tree.modules_without_reason), False),
    ):
        share = f" = {100 * len(places) / max(1, total):.1f} % of functions" if percents else ""
        worst = Counter(PurePosixPath(place.path).parent.as_posix() for place in places).most_common(top)
        yield f"{title}: {len(places)}{share}"
        yield from (f"    {count:4} {folder}" for folder, count in worst)
    yield f"packages and modules in an import cycle: {len(tree.cycle_members)}"
    yield from (f"    {parent or 'top'}: {', '.join(sorted(knot))}" for parent, nodes in tree.cycles.items() for knot in nodes)


if __name__ == "__main__":
    main()
