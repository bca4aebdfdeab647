"""The wheel contains every file of the packages (code, migrations, templates, type markers) and no other file of the repository."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("justenough", "workflows", "activities", "worker", "console")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return the names of the files in a newly built wheel."""
    into = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", into], cwd=ROOT, check=True, capture_output=True)
    (built,) = into.glob("*.whl")
    return set(zipfile.ZipFile(built).namelist())


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_a_package_is_in_the_wheel(wheel: set[str], package: str) -> None:
    files = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts}

    assert files - wheel == set()


def test_the_example_shop_is_in_the_wheel(wheel: set[str]) -> None:
    shop = ROOT / "examples" / "shop"
    files = {f"justenough/examples/{path.relative_to(shop.parent)}" for path in shop.rglob("*") if path.is_file() and path.suffix != ".pyc"}

    assert files - wheel == set()


def test_the_docs_are_in_the_wheel(wheel: set[str]) -> None:
    docs = ROOT / "docs"
    files = {f"console/{path.relative_to(ROOT)}" for path in docs.rglob("*") if path.suffix in {".md", ".png", ".svg"}}

    assert files - wheel == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_marked_as_typed(wheel: set[str], package: str) -> None:
    assert f"{package}/py.typed" in wheel


def test_the_wheel_contains_only_the_packages(wheel: set[str]) -> None:
    assert {name.partition("/")[0] for name in wheel if ".dist-info/" not in name} == set(PACKAGES)


def test_the_program_and_the_worker_s_commands_can_be_loaded() -> None:
    (program,) = entry_points(group="console_scripts", name="justenough")
    (commands,) = entry_points(group="justenough.commands", name="worker")

    assert callable(program.load())
    assert callable(commands.load())
