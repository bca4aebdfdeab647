"""The Python of the example shop's jobs if the program was installed from a wheel: a virtual environment in the stack's home, created once.

In a checkout `make setup` creates it. Jobs never run with the worker's own packages.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from justenough.adapters.configuration.example_shop import INSTALLED
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.errors import GiveUp
from worker.stack.environment import SHOP_PYTHON
from worker.stack.paths import StackPaths
from worker.stack.starter_pipes import Report

FOLDER, DONE = "job-python", ".done"
CANDIDATES = ("/usr/bin/python3", getattr(sys, "_base_executable", sys.executable))
"""Candidates for the Python. The system's own comes first, because jobs' users can enter its folder."""
INSTALL_TIMEOUT_S = 600


class NoJobPython(GiveUp):
    """The jobs' virtual environment could not be created. The message ends with the last output of the installer."""


def with_job_python(settings: Settings, report: Report) -> Settings:
    """Return the settings with a Python for the installed shop's jobs, which is created first if it does not exist. Raises NoJobPython."""
    # A detached start passes every setting on, so that none of them looks like a default.
    is_chosen = settings.job_path != Settings.model_fields["job_path"].default or SHOP_PYTHON.is_dir()
    if is_chosen or settings.config.expanduser().absolute() != INSTALLED:
        return settings
    folder = StackPaths(settings.home).home / FOLDER
    if not (folder / DONE).exists():
        report("step", "installing the packages of the shop's jobs")
        probe = ("-c", "import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 10))")
        usable = (
            path
            for path in CANDIDATES
            if Path(path).exists() and not subprocess.run((path, *probe), check=False, capture_output=True).returncode
        )
        python = next(usable, sys.executable)
        # Isolated (-I): the supervisor's own packages must not count as installed there.
        _run(python, "-I", "-m", "venv", "--clear", str(folder))
        options = ("-q", "--disable-pip-version-check", "--require-hashes", "-r", str(INSTALLED / "requirements.txt"))
        _run(str(folder / "bin" / "python"), "-I", "-m", "pip", "install", *options)
        # The jobs' users must read it, whatever this process's umask.
        _run("chmod", "-R", "a+rX", str(folder))
        (folder / DONE).touch()
    return settings.model_copy(update={"job_path": f"{folder / 'bin'}:{settings.job_path}"})


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
        said = " ".join((done.stderr or done.stdout).strip().splitlines()[-3:]) if done.returncode else ""
    except subprocess.TimeoutExpired:
        said = f"it took longer than {INSTALL_TIMEOUT_S} s"
    if said:
        raise NoJobPython(
            f"the Python of the shop's jobs could not be installed; set JUSTENOUGH_JOB_PATH to another Python, or fix this: {' '.join(command[:4])} …: {said}"
        )
