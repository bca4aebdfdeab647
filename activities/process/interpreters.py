"""Finds the Python that a job runs with and the folders it needs. Only reads files: nothing that a job chose runs outside its sandbox."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.errors import GiveUp

SYSTEM_PREFIX = Path("/usr")
"""Mounted in every sandbox."""
PYTHON_NAMES = ("python3", "python")


class InterpreterRefused(GiveUp):
    """The Python does not exist, or a job may not use it. The message names it and the reason."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python that `python` and `python3` mean in a job."""

    path: Path
    prefixes: tuple[Path, ...]
    """Folders outside /usr that it needs, each readable at its own path."""


def find_interpreter(settings: Settings, python: str | None) -> Interpreter:
    """Return the Python at `python`, else the first in settings.job_path, else the system's. Raises InterpreterRefused."""
    if not python:
        folders = [*filter(None, settings.job_path.split(os.pathsep)), "/usr/bin", "/usr/local/bin"]
        candidates = (shutil.which(name, path=str(Path(folder).absolute())) for folder in folders for name in PYTHON_NAMES)
        python = next(filter(None, candidates), None)
        if python is None:
            raise InterpreterRefused(f"no python3 in {', '.join(folders)}; set JUSTENOUGH_JOB_PATH to a folder that has one")
    path = Path(python)
    if not (path.is_absolute() and path.is_file() and os.access(path, os.X_OK)):
        raise InterpreterRefused(f"{path}: not a program on the worker's machine; set run.python to a Python there, or omit it")
    # On most systems, and in the sandbox, /bin is a link to /usr/bin.
    path = SYSTEM_PREFIX / "bin" / path.name if path.parent.resolve() == SYSTEM_PREFIX / "bin" else path
    root = SYSTEM_PREFIX if Path("/bin").resolve() == SYSTEM_PREFIX / "bin" else Path("/")
    prefixes = tuple(dict.fromkeys(root if prefix == Path("/") else prefix for prefix in _prefixes(path)))
    # A Python in the worker's own prefix reads the worker's packages: always in a venv, otherwise if the version is the same.
    same_version = path.resolve().name == f"python{sys.version_info.major}.{sys.version_info.minor}"
    for prefix in prefixes:
        if not _is_venv(prefix) and not any(prefix.glob("lib*/python3*/os.py")):
            raise InterpreterRefused(f"{path}: {prefix} is not the prefix of a Python installation")
        if settings.home.resolve().is_relative_to(prefix.resolve()) and prefix != SYSTEM_PREFIX:
            raise InterpreterRefused(f"{path}: {prefix} contains the worker's own data")
        shares_packages = _is_venv(prefix) or (prefix == path.parent.parent and same_version)
        if prefix.resolve() == Path(sys.prefix).resolve() and shares_packages:
            message = "a job never runs in the worker's environment; give it a separate one (JUSTENOUGH_JOB_PATH, run.python)"
            raise InterpreterRefused(f"{path}: {message}")
    venv = _is_venv(path.parent.parent)
    return Interpreter(path if venv else path.resolve(), tuple(prefix for prefix in prefixes if not prefix.is_relative_to(SYSTEM_PREFIX)))


def _prefixes(path: Path) -> Iterator[Path]:
    """Yield the virtual environment, the installation it was made from, and the folder of every symbolic link on the way to its Python."""
    venv = path.parent.parent
    if _is_venv(venv):
        yield venv
        lines = (venv / "pyvenv.cfg").read_text("utf-8", "replace").splitlines()
        home = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}.get("home", "")
        if not home.startswith("/"):
            raise InterpreterRefused(f"{venv}: its pyvenv.cfg has no `home`; create the environment again (python3 -m venv)")
        yield Path(home).parent
        yield Path(home).resolve().parent
    while path.is_symlink():
        path = path.parent / path.readlink()
        yield Path(os.path.normpath(path.parent.parent))
    yield path.resolve().parent.parent


def _is_venv(prefix: Path) -> bool:
    return (prefix / "pyvenv.cfg").is_file()
