"""Each import contract of pyproject.toml rejects a forbidden import, in a copy of the packages."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("justenough", "workflows", "activities", "worker", "console")
CONTRACTS = {
    contract["id"]: contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}
VERDICT = re.compile(r"^(?P<name>.+) (?P<verdict>KEPT|BROKEN)\b", re.MULTILINE)

# The contract that must break when a package gets this line. Some contracts need several lines to leave no gap.
BAD = [
    ("layers", "justenough/domain/core", "import activities"),
    ("layers", "justenough/services", "import console"),
    ("layers", "activities/support", "import workflows"),
    ("layers", "activities/support", "import console"),
    ("layers", "workflows", "import worker"),
    ("layers", "workflows", "import console"),
    ("layers", "worker", "import console"),
    ("layers", "console/auth", "import worker"),
    ("sides", "console/services", "import workflows"),
    ("sides", "console/services", "import activities"),
    ("layers-of-justenough", "justenough/domain/core", "import justenough.adapters"),
    ("layers-of-justenough", "justenough/adapters/vault", "import justenough.services"),
    ("layers-of-justenough", "justenough", "import ast"),
    ("domain", "justenough/domain/core", "import justenough.domain.jobs"),
    ("domain", "justenough/domain/inbox", "import justenough.domain.catalog"),
    ("domain", "justenough/domain", "import ast"),
    ("adapters", "justenough/adapters/store", "import justenough.adapters.targets"),
    ("adapters", "justenough/adapters/vault", "import justenough.adapters.store"),
    ("adapters", "justenough/adapters", "import ast"),
    ("activities", "activities/support", "import activities.session"),
    ("activities", "activities/issuing", "import activities.broker"),
    ("activities", "activities", "import ast"),
    ("console", "console/services", "import console.api"),
    ("console", "console/services", "import console.pages"),
    ("console", "console/api", "import console.pages"),
    ("console", "console/pages", "import console.api"),
    ("console", "console", "import ast"),
    ("cli", "console/cli", "import console.services"),
    ("pure", "justenough/domain/core", "import subprocess"),
    ("pure", "justenough/domain/core", "from time import monotonic"),
    ("pure", "justenough/domain/core", "import os"),
    ("deterministic", "workflows", "import httpx"),
    ("deterministic", "workflows", "from uuid import uuid4"),
    ("vault-door", "activities/support", "import hvac"),
    ("vault-door", "justenough/adapters/store", "from requests import get"),
    ("vault-door", "worker", "from hvac.exceptions import Forbidden"),
    ("store-door", "console/services", "from sqlalchemy import select"),
    ("store-door", "justenough/services", "import alembic"),
    ("store-door", "worker", "from sqlalchemy import text"),
    ("temporal-door", "console/services", "from temporalio.client import Client"),
]


@pytest.fixture(scope="module")
def breaches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return import-linter's report on each broken contract, by id, for a copy of the packages with every bad line."""
    house = tmp_path_factory.mktemp("house")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, house / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", house)
    for number, (contract, package, line) in enumerate(BAD):
        (house / package / f"{module_name(number)}.py").write_text(f'"""Breaks {contract}."""\n\n{line}\n')
    return report(house)


def module_name(number: int) -> str:
    """Return the module with one of the bad lines. Nothing imports it, so a report about it is about this line only."""
    return f"intruder_{number}_"


def report(house: Path) -> dict[str, str]:
    """Return import-linter's report on each broken contract, by id. Fails unless it checked all of them."""
    program = Path(sys.executable).with_name("lint-imports")
    env = {"PYTHONPATH": str(house), "COLUMNS": "1000"}  # wide, so that it breaks no line
    ran = subprocess.run([program, "--no-cache"], cwd=house, capture_output=True, text=True, check=False, env=env)
    verdicts = {match["name"]: match["verdict"] for match in VERDICT.finditer(ran.stdout)}
    assert set(CONTRACTS.values()) <= set(verdicts), ran.stdout + ran.stderr
    assert ran.returncode == ("BROKEN" in verdicts.values())
    _, *parts = re.split(r"^(.+)\n-+\n", ran.stdout, flags=re.MULTILINE)
    reports = dict(zip(parts[::2], parts[1::2], strict=True))
    return {contract: reports[name] for contract, name in CONTRACTS.items() if verdicts[name] == "BROKEN"}


def test_the_source_keeps_every_contract() -> None:
    assert report(ROOT) == {}


@pytest.mark.parametrize("number", range(len(BAD)), ids=[f"{contract}: {package}: {line}" for contract, package, line in BAD])
def test_a_bad_import_breaks_its_contract_and_no_other(breaches: dict[str, str], number: int) -> None:
    assert {contract for contract, text in breaches.items() if module_name(number) in text} == {BAD[number][0]}


def test_every_contract_has_a_line_that_breaks_it() -> None:
    assert {contract for contract, _, _ in BAD} == set(CONTRACTS)


def test_importing_justenough_loads_none_of_its_parts() -> None:
    """The command line and the workflow sandbox load only what they use."""
    nodes = ast.walk(ast.parse((ROOT / "justenough/__init__.py").read_text()))

    assert [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)] == []


# Import-linter cannot see a clock or file that is used without an import of its own, nor imports of parts of a module.
CLOCKS = {"now", "utcnow", "today"}
DOORS = {"open", "input", "print", "__import__", "eval", "exec"}
PURE_PARTS = {"pathlib": {"PurePosixPath"}, "urllib.parse": {"quote", "quote_plus", "unquote", "urlsplit"}}


def impurities(source: str) -> list[str]:
    """Return the places in `source` that read a clock or may do I/O, as `line: name`."""
    nodes = list(ast.walk(ast.parse(source)))
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    places = [(call.lineno, call.func.attr) for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in CLOCKS]
    places += [(call.lineno, call.func.id) for call in calls if isinstance(call.func, ast.Name) and call.func.id in DOORS]
    for node in nodes:
        places += [(node.lineno, name) for name in impure_imports(node)] if isinstance(node, ast.Import | ast.ImportFrom) else []
    return [f"{line}: {name}" for line, name in sorted(places)]


def impure_imports(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Return the names that an import takes from pathlib or urllib, except their pure parts."""
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.Import):
        return [name for name in names if name.partition(".")[0] in {"pathlib", "urllib"}]
    origin = node.module or ""
    return [name for name in names if origin.partition(".")[0] in {"pathlib", "urllib"} and name not in PURE_PARTS.get(origin, set())]


def test_the_domain_calls_no_clock_and_opens_nothing() -> None:
    found = {path: impurities(path.read_text()) for path in sorted((ROOT / "justenough/domain").rglob("*.py"))}

    assert found
    assert {str(path.relative_to(ROOT)): names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "line,name",
    [
        ("x = datetime.now(UTC)", "now"),
        ("x = datetime.datetime.utcnow()", "utcnow"),
        ("x = date.today()", "today"),
        ("x = open('x')", "open"),
        ("print(1)", "print"),
        ("import pathlib", "pathlib"),
        ("import urllib.request", "urllib.request"),
        ("from pathlib import Path, PurePosixPath", "Path"),
        ("from urllib import request", "request"),
        ("from urllib.request import urlopen", "urlopen"),
    ],
)
def test_a_clock_or_a_door_in_the_pure_layer_is_found(line: str, name: str) -> None:
    assert impurities(f"def f():\n    {line}\n") == [f"2: {name}"]
