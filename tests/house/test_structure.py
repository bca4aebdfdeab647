"""The names and structure of the source do not get worse: class, module and function names, single-use helpers, import cycles, long files.

`python -m tests.house.source_tree --help` shows how to list the places behind each figure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import pytest

from tests.house.source_tree import SourceTree, is_named_by_participle, is_participle

LIMITS: dict[str, float] = {
    # As measured; lower a limit whenever its figure has fallen.
    "classes that share their name": 0,
    "modules named by a gerund or participle": 0,
    "percent of functions named by a participle": 0.5,
    "percent of functions that are private and used once": 12.0,
    "packages and modules in an import cycle": 0,
    "long files that do not say why": 0,
}
SHARED_CLASS_NAMES: frozenset[str] = frozenset()
"""Names of several classes. Remove a name once only one class has it; add none."""

MEASURES: dict[str, Callable[[SourceTree], tuple[float, Collection[object]]]] = {
    "classes that share their name": lambda tree: (sum(map(len, tree.common_class_names.values())), tree.common_class_names),
    "modules named by a gerund or participle": lambda tree: (len(tree.participle_modules), tree.participle_modules),
    "percent of functions named by a participle": lambda tree: (tree.percent(tree.participle_functions), tree.participle_functions),
    "percent of functions that are private and used once": lambda tree: (tree.percent(tree.single_use_helpers), tree.single_use_helpers),
    "packages and modules in an import cycle": lambda tree: (len(tree.cycle_members), tree.cycle_members),
    "long files that do not say why": lambda tree: (len(tree.modules_without_reason), tree.modules_without_reason),
}


def figures_over(tree: SourceTree, limits: Mapping[str, float] = LIMITS) -> set[str]:
    """Return the figures of a tree that exceed their limits."""
    return {name for name, limit in limits.items() if MEASURES[name](tree)[0] > limit}


def test_every_figure_has_a_limit() -> None:
    assert set(LIMITS) == set(MEASURES)


@pytest.mark.parametrize("name", LIMITS)
def test_no_figure_exceeds_its_limit(source: SourceTree, name: str) -> None:
    figure, offenders = MEASURES[name](source)
    listing = "\n".join(map(str, offenders)) if len(offenders) < 20 else "`python -m tests.house.source_tree --help` shows how to list them"

    assert figure <= LIMITS[name], f"change those that you added; do not raise the limit\n{listing}"


def new_common_names(tree: SourceTree, names: Collection[str] = SHARED_CLASS_NAMES) -> dict[str, list[str]]:
    """Return the shared class names that are not in the list, each with its places."""
    return {name: list(map(str, places)) for name, places in tree.common_class_names.items() if name not in names}


def stale_common_names(tree: SourceTree, names: Collection[str] = SHARED_CLASS_NAMES) -> set[str]:
    """Return the names in the list that classes no longer share."""
    return set(names) - set(tree.common_class_names)


def test_no_class_has_the_name_of_another_class(source: SourceTree) -> None:
    assert new_common_names(source) == {}


def test_the_list_of_shared_class_names_has_no_name_of_a_single_class(source: SourceTree) -> None:
    assert stale_common_names(source) == set()


# Each check fails on a tree that is broken on purpose, and no other check fails on it.

CLEAN = {
    "justenough/__init__.py": "",
    "justenough/vault/__init__.py": "",
    "justenough/vault/client.py": "class Client:\n    def read(self): ...\n",
    "justenough/store/__init__.py": "",
    "justenough/store/jobs.py": "from justenough.vault.client import Client\n\ndef open_jobs(): return Client()\n",
}
BREAKS = {
    "classes that share their name": {"console/app.py": "class Client: ...\n"},
    "modules named by a gerund or participle": {"console/judging.py": ""},
    "percent of functions named by a participle": {"console/app.py": "def told_of(): ...\n"},
    "percent of functions that are private and used once": {"console/app.py": "def _text(): ...\n\ndef text(): return _text()\n"},
    "packages and modules in an import cycle": {"justenough/vault/client.py": "import justenough.store.jobs\n\nclass Client: ...\n"},
    "long files that do not say why": {"console/app.py": "\n" * 401},
}


def test_a_clean_tree_meets_every_target() -> None:
    assert figures_over(SourceTree.of(CLEAN), dict.fromkeys(LIMITS, 0)) == set()


@pytest.mark.parametrize("name", LIMITS)
def test_a_broken_rule_is_found_by_its_own_check_and_no_other(name: str) -> None:
    assert figures_over(SourceTree.of(CLEAN | BREAKS[name]), dict.fromkeys(LIMITS, 0)) == {name}


def test_the_list_of_shared_class_names_must_be_exact() -> None:
    tree = SourceTree.of(CLEAN | BREAKS["classes that share their name"])

    assert new_common_names(tree, {"Client"}) == {}
    assert new_common_names(tree, {"Other"}) == {"Client": ["console/app.py:1 Client", "justenough/vault/client.py:1 Client"]}
    assert stale_common_names(tree, {"Client"}) == set()
    assert stale_common_names(tree, {"Client", "Other"}) == {"Other"}


# The rules, by tables.


@pytest.mark.parametrize("word", ["judging", "owed", "told", "kept", "unseen", "used", "dying", "beating", "replayed"])
def test_a_gerund_or_participle_is_recognized(word: str) -> None:
    assert is_participle(word)


@pytest.mark.parametrize(
    "word", ["settings", "feed", "embed", "string", "ceiling", "warning", "pending", "ledger", "red", "need", "put_bundle"]
)
def test_a_word_that_only_ends_like_a_participle_is_not_recognized(word: str) -> None:
    assert not is_participle(word)


@pytest.mark.parametrize(
    "path", ["console/judging.py", "console/owed.py", "console/telling/now.py", "console/telling/__init__.py", "console/_told.py"]
)
def test_a_module_or_folder_named_by_a_participle_is_found(path: str) -> None:
    assert SourceTree.of({path: ""}).participle_modules != []


@pytest.mark.parametrize(
    "path", ["console/settings.py", "console/streaming_call.py", "worker/provisioning/mounts.py", "console/events/live_feed.py"]
)
def test_a_module_named_by_a_noun_is_not_reported(path: str) -> None:
    assert SourceTree.of({path: ""}).participle_modules == []


@pytest.mark.parametrize("name", ["answered", "_told", "taken_back", "told_if_slow", "decided_before", "_woken_or_due", "__sealed"])
def test_a_function_named_by_a_participle_is_found(name: str) -> None:
    assert is_named_by_participle(name)


@pytest.mark.parametrize("name", ["revoke_lease", "is_closed", "granted_tools", "signing_secrets", "put_bundle", "__init__", "_", "find"])
def test_a_function_named_by_a_verb_a_noun_or_a_question_is_not_reported(name: str) -> None:
    assert not is_named_by_participle(name)


@pytest.mark.parametrize(
    "lines,count",
    [
        ("@property\ndef closed(self) -> bool: ...", 0),
        ("@functools.cached_property\ndef closed(self) -> bool: ...", 0),
        ("@property\ndef closed(self) -> str: ...", 1),
        ("def closed(self) -> bool: ...", 1),
        ("async def closed(): ...", 1),
        ("def outer():\n    def closed(): ...", 1),
    ],
)
def test_only_a_property_of_type_bool_may_be_a_participle(lines: str, count: int) -> None:
    assert len(SourceTree.of({"console/app.py": lines}).participle_functions) == count


@pytest.mark.parametrize(
    "lines,names",
    [
        ("def _a(): ...", []),
        ("def _a(): ...\n_a()", ["_a"]),
        ("def _a(): ...\n_a()\n_a()", []),
        ("def _a(): _a()\n_a()", ["_a"]),
        ("def a(): ...\na()", []),
        ("def __getattr__(name): ...\n__getattr__('a')", []),
        ("def outer():\n    def _a(): ...\n    _a()", []),
        ("class A:\n    def _a(self): ...\n    def b(self): self._a()", ["A._a"]),
        ("class A:\n    def _a(self): ...\n    def b(self): self._a() or self._a()", []),
        # Two classes with a helper of the same name, each used once: both are found.
        (
            "class A:\n    def _a(self): ...\n    def b(self): self._a()\nclass B:\n    def _a(self): ...\n    def b(self): self._a()",
            ["A._a", "B._a"],
        ),
        # A use in a subclass counts for the base that has the method.
        ("class A:\n    def _a(self): ...\n    def b(self): self._a()\nclass B(A):\n    def c(self): self._a()", []),
        ("class A:\n    def _a(self): ...\nclass B(A):\n    def c(self): self._a()", ["A._a"]),
        ("class A:\n    def _a(self): ...\ndef b(a): a._a()", ["A._a"]),
        ("class A:\n    class B: ...\n    def _a(self): ...\n    def b(self): self._a()", ["A._a"]),
        ("class A:\n    @staticmethod\n    def _a(): ...\n    def b(self): A._a()", ["A._a"]),
    ],
)
def test_a_private_function_with_one_use_outside_itself_is_found(lines: str, names: list[str]) -> None:
    assert [place.name for place in SourceTree.of({"console/app.py": lines}).single_use_helpers] == names


def test_a_use_in_another_module_counts() -> None:
    files = {"console/app.py": "def _a(): ...\n_a()", "console/main.py": "from console.app import _a\n"}

    assert SourceTree.of(files).single_use_helpers == []


@pytest.mark.parametrize(
    "files,tangled",
    [
        ({"console/a/x.py": "import console.b.y", "console/b/y.py": ""}, []),
        ({"console/a/x.py": "import console.b.y", "console/b/y.py": "from console.a import x"}, ["console.a", "console.b"]),
        # Look for cycles of packages, too: a.x -> b.y and b.z -> a.w are no cycle of modules.
        (
            {"console/a/x.py": "import console.b.y", "console/b/y.py": "", "console/b/z.py": "import console.a.w", "console/a/w.py": ""},
            ["console.a", "console.b"],
        ),
        ({"console/a.py": "def f():\n    import console.b", "console/b.py": "import console.a"}, ["console.a", "console.b"]),
        ({"console/__init__.py": "import console.a", "console/a.py": "from console import X"}, ["console.__init__", "console.a"]),
        ({"console/a.py": "import worker.b", "worker/b.py": "import console.c", "console/c.py": ""}, ["console", "worker"]),
        (
            {"console/a.py": "import console.b", "console/b.py": "import console.c", "console/c.py": "import console.a"},
            ["console.a", "console.b", "console.c"],
        ),
        ({"console/a.py": "import json"}, []),
    ],
)
def test_an_import_cycle_among_siblings_is_found(files: dict[str, str], tangled: list[str]) -> None:
    assert SourceTree.of(files).cycle_members == tangled


def test_a_long_file_may_say_why() -> None:
    long = '"""Holds tables.\n\nOver 400 lines: every table is here, so that its foreign keys are seen together.\n"""\n' + "\n" * 400

    assert SourceTree.of({"console/app.py": long}).modules_without_reason == []
    assert SourceTree.of(
        {"console/app.py": long.replace("every table is here, so that its foreign keys are seen together", "long")}
    ).modules_without_reason
