"""Which Python `make setup` chooses. The named interpreters are scripts that answer as one of that version would, and note who makes the venv."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[2] / "deploy" / "setup.sh"
COMPLETE, NO_PIP, TOO_OLD = "nothing", "ensurepip", "import"
"""What a Python cannot run: code that contains this word."""

NOT_THERE = {f"python3{minor}": "#!/bin/sh\nexit 127\n" for minor in ("", ".11", ".12", ".13", ".14")}


def choose(folder: Path, pythons: dict[str, str], *, named: str = "") -> tuple[str, str]:
    """Run the step of `make setup` that makes the venv, with these Pythons; return the name of the one that was to make it, and the errors."""
    programs = folder / "bin"
    programs.mkdir()
    stand_ins = {
        name: STAND_IN.format(name=name, chosen=folder / "chosen", cannot=cannot, python=sys.executable) for name, cannot in pythons.items()
    }
    # The script also searches /usr/sbin, which some systems merge with /usr/bin. No other Python is found there, and apt installs nothing.
    for name, text in {**NOT_THERE, "id": "#!/bin/sh\necho 1000\n", **stand_ins}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    for tool in ("bash", "dirname"):
        (programs / tool).symlink_to(str(shutil.which(tool)))
    (folder / "deploy").mkdir()
    script = shutil.copy(SETUP, folder / "deploy")
    environment = {"PATH": str(programs), "PYTHON": named}
    ran = subprocess.run([programs / "bash", script, "main"], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran
    chosen = folder / "chosen"
    return chosen.read_text().strip() if chosen.exists() else "", ran.stderr


STAND_IN = """#!/bin/bash
case "$*" in
    "-m venv"*) echo {name} >{chosen}; exit 1 ;;
    *{cannot}*) exit 1 ;;
esac
exec {python} "$@"
"""


@pytest.mark.parametrize(
    "pythons, named, chosen",
    [
        ({"python3": COMPLETE, "python3.13": COMPLETE, "python3.12": COMPLETE}, "", "python3.13"),
        ({"python3": COMPLETE, "python3.11": COMPLETE}, "", "python3"),
        ({"python3": COMPLETE, "python3.14": COMPLETE}, "", "python3"),
        ({"python3.14": COMPLETE}, "", "python3.14"),
        ({"python3": COMPLETE, "my python": COMPLETE}, "my python", "my python"),
        ({"python3": TOO_OLD, "python3.11": COMPLETE}, "", "python3.11"),
        # Debian's Python can make no venv without another package, which only root can install.
        ({"python3": COMPLETE, "python3.13": NO_PIP}, "", "python3"),
        ({"python3": COMPLETE, "python3.13": COMPLETE}, "python3", "python3"),
    ],
)
def test_the_newest_python_up_to_3_13_that_can_make_a_venv_is_chosen_unless_one_is_named(
    tmp_path: Path, pythons: dict[str, str], named: str, chosen: str
) -> None:
    assert choose(tmp_path, pythons, named=named)[0] == chosen


@pytest.mark.parametrize(
    "pythons, named, why",
    [
        ({}, "", "Python 3.11 or newer is needed; no python3 was found"),
        ({"python3": TOO_OLD}, "", "was found. Name another with PYTHON=/path/to/python3 make setup"),
        ({"python3": COMPLETE}, "/opt/none/python3", "Python 3.11 or newer is needed; no /opt/none/python3 was found"),
        ({"python3.13": NO_PIP}, "", "python3.13 cannot make a venv: install your system's package 'python3-venv'"),
    ],
)
def test_without_a_python_that_will_do_the_setup_says_what_to_do(tmp_path: Path, pythons: dict[str, str], named: str, why: str) -> None:
    chosen, errors = choose(tmp_path, pythons, named=named)
    assert chosen == ""
    assert why in errors
