"""The lock files pin every package by hash, contain no address, and match pyproject.toml."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGES = ("justenough", "workflows", "activities", "worker", "console")
RUNTIME = ROOT / "requirements.lock"
EVERYTHING = ROOT / "requirements-dev.lock"
LOCKS = [RUNTIME, EVERYTHING, ROOT / "requirements-build.lock", ROOT / "examples/shop/requirements.txt"]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DIRECT = [Requirement(text) for text in PYPROJECT["project"]["dependencies"]]
EMBEDDED = [Requirement(text) for text in PYPROJECT["project"]["optional-dependencies"]["embedded"]]
GROUPS = PYPROJECT["dependency-groups"]
DEV = [Requirement(text) for text in [*GROUPS["dev"], *GROUPS["build"]] if isinstance(text, str)]


def entries(lock: Path) -> list[str]:
    """Return the lock file's requirements, one per line."""
    lines = lock.read_text().replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def pins(lock: Path) -> dict[str, str]:
    """Return the version of each package by canonical name."""
    requirements = [Requirement(re.sub(r"--hash=\S+", "", entry).strip()) for entry in entries(lock)]
    return {canonicalize_name(item.name): str(item.specifier).removeprefix("==") for item in requirements}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_file_contains_no_address(lock: Path) -> None:
    addresses = re.findall(r"\w+://\S*|--(?:extra-)?index\S*|--find-links\S*|--trusted-host\S*| @ \S+", lock.read_text())

    assert addresses == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_package_is_pinned_and_hashed(lock: Path) -> None:
    loose = [entry for entry in entries(lock) if not re.match(r"[\w.-]+==[^\s;]+ .*--hash=sha256:[0-9a-f]{64}", entry)]

    assert entries(lock)
    assert loose == []


@pytest.mark.parametrize("lock,requirements", [(RUNTIME, DIRECT), (EVERYTHING, [*DIRECT, *EMBEDDED, *DEV])], ids=["runtime", "everything"])
def test_the_lock_satisfies_the_requirements_of_pyproject(lock: Path, requirements: list[Requirement]) -> None:
    pinned = pins(lock)

    unmet = [
        str(item) for item in requirements if not item.specifier.contains(pinned.get(canonicalize_name(item.name), "0"), prereleases=True)
    ]

    assert unmet == []


def test_the_tested_versions_are_the_deployed_versions() -> None:
    runtime, everything = pins(RUNTIME), pins(EVERYTHING)

    assert {name: everything.get(name) for name in runtime} == runtime


@pytest.mark.parametrize("lock", [EVERYTHING, ROOT / "requirements-build.lock"], ids=lambda lock: lock.name)
def test_the_build_backend_is_locked_so_that_installing_needs_no_build_isolation(lock: Path) -> None:
    backend = [Requirement(text) for text in PYPROJECT["build-system"]["requires"]]

    assert backend
    assert [item.name for item in backend if canonicalize_name(item.name) not in pins(lock)] == []


def third_party_imports(path: Path) -> set[str]:
    """Return the top-level names that a file imports from outside the standard library and our packages."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name.partition(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module.partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return names - set(sys.stdlib_module_names) - set(PACKAGES)


@pytest.fixture(scope="module")
def distributions() -> Mapping[str, list[str]]:
    """Return the installed distributions of each top-level name."""
    return packages_distributions()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_third_party_import_is_a_declared_dependency(package: str, distributions: Mapping[str, list[str]]) -> None:
    declared = {canonicalize_name(item.name) for item in [*DIRECT, *EMBEDDED]}
    imported = {name for path in (ROOT / package).rglob("*.py") for name in third_party_imports(path)}

    undeclared = {
        name for name in imported if not declared & {canonicalize_name(distribution) for distribution in distributions.get(name, [])}
    }

    assert undeclared == set()
