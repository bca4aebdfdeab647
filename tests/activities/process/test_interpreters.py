"""A job gets the Python that it names, with that Python's own packages, wherever it is installed: never the worker's, and nothing besides a
Python.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from activities.process.interpreters import InterpreterRefused, find_interpreter
from justenough.adapters.configuration.settings import Settings
from tests.activities.process.job_process import Runner

TELL = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, sys.executable]))"


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An environment of its own under a folder that nobody but its owner may enter."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    return make_venv(private / "venv")


def make_venv(folder: Path) -> Path:
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", str(folder)], check=True, env={"PATH": "/usr/bin:/bin"})
    site = next(folder.glob("lib/python3*/site-packages"))
    (site / "its_own.py").write_text("WORD = 'its own package'\n")
    return folder


@pytest.mark.parametrize("name", ["python", "python3"])
async def test_a_job_runs_with_the_python_that_its_spec_names(run: Runner, venv: Path, name: str) -> None:
    ran = await run(name, "-c", f"import its_own; {TELL}", python=str(venv / "bin" / "python"))
    assert ran.json_output[0] == str(venv)


async def test_a_job_without_a_named_python_gets_the_first_one_in_the_job_path(run: Runner, venv: Path, settings: Settings) -> None:
    with_path = Runner(settings.model_copy(update={"job_path": f"{venv}/nothing:{venv}/bin:/usr/bin"}), run.sandbox)
    assert (await with_path.python("import its_own; print(its_own.WORD)")).log == "its own package\n"
    # Scripts that ask for it by name get the same one.
    assert (await with_path("sh", "-c", "python3 -c 'import its_own; print(its_own.WORD)'")).log == "its own package\n"


@pytest.mark.parametrize("scratch", ["/tmp", "/var/tmp"])
async def test_a_python_below_a_folder_that_each_job_has_of_its_own_can_be_used(run: Runner, scratch: str) -> None:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        venv = make_venv(Path(folder) / "venv")
        ran = await run("python", "-c", "import its_own; print(its_own.WORD)", python=str(venv / "bin" / "python"))
    assert (ran.code, ran.log) == (0, "its own package\n")


async def test_a_job_gets_the_systems_python_if_the_job_path_has_none(run: Runner, settings: Settings) -> None:
    nowhere = Runner(settings.model_copy(update={"job_path": "/nowhere"}), run.sandbox)
    assert (await nowhere.python(TELL)).json_output[1] == "/usr"


def test_a_machine_without_a_python_for_jobs_names_the_setting(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    why = "no python3 in /nowhere, /usr/bin, /usr/local/bin; set JUSTENOUGH_JOB_PATH to a folder that has one"
    with pytest.raises(InterpreterRefused, match=why):
        find_interpreter(settings.model_copy(update={"job_path": "/nowhere"}), None)


@pytest.mark.parametrize("base", ["/usr/bin", "/bin"])
async def test_the_systems_python_can_be_named_in_either_folder_and_be_the_base_of_an_environment(
    run: Runner, venv: Path, settings: Settings, base: str
) -> None:
    assert find_interpreter(settings, f"{base}/python3") == find_interpreter(settings, "/usr/bin/python3")
    assert (await run("python", "-c", TELL, python=f"{base}/python3")).json_output[1] == "/usr"
    (venv / "pyvenv.cfg").write_text(f"home = {base}\n")
    assert (await run("python", "-c", "import its_own; print(its_own.WORD)", python=f"{venv}/bin/python")).log == "its own package\n"


async def test_a_job_cannot_read_the_files_beside_its_python_environment(run: Runner, venv: Path) -> None:
    (venv.parent / "secret").write_text("beside it")
    (venv.parent / "secret").chmod(0o644)
    ran = await run("ls", "-A", str(venv.parent), python=str(venv / "bin" / "python"))
    assert ran.log == "venv\n"


def test_the_workers_own_environment_is_refused(settings: Settings) -> None:
    with pytest.raises(InterpreterRefused, match="never runs in the worker's environment"):
        find_interpreter(settings, sys.executable)


def test_a_python_installation_with_the_workers_own_packages_is_refused_and_another_version_beside_it_is_not(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose worker runs without a virtual environment: each version of Python has packages of its own."""
    own, other = f"python{sys.version_info.major}.{sys.version_info.minor}", "python3.1"
    for version in (own, other):
        (tmp_path / "lib" / version).mkdir(parents=True)
        (tmp_path / "lib" / version / "os.py").touch()
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / version).touch(mode=0o755)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert find_interpreter(settings, str(tmp_path / "bin" / other)).prefixes == (tmp_path,)
    with pytest.raises(InterpreterRefused, match="never runs in the worker's environment"):
        find_interpreter(settings, str(tmp_path / "bin" / own))


@pytest.mark.parametrize("python", ["/nowhere/python", "/etc/passwd", "/etc"])
def test_a_python_path_that_is_missing_or_not_a_program_is_refused(settings: Settings, python: str) -> None:
    with pytest.raises(InterpreterRefused, match="not a program on the worker's machine"):
        find_interpreter(settings, python)


def test_a_program_that_is_not_in_a_python_installation_is_refused(settings: Settings, home: Path) -> None:
    fake = home / "bin" / "python"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    with pytest.raises(InterpreterRefused, match="is not the prefix of a Python installation"):
        find_interpreter(settings, str(fake))


def test_a_python_whose_folder_contains_the_workers_data_is_refused(settings: Settings, home: Path) -> None:
    (home / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (home / "bin").mkdir()
    (home / "bin" / "python").symlink_to("/usr/bin/python3")
    with pytest.raises(InterpreterRefused, match="contains the worker's own data"):
        find_interpreter(settings, str(home / "bin" / "python"))


@pytest.mark.parametrize("says", ["", "home = bin\n", "include-system-site-packages = false\n"])
def test_an_environment_that_does_not_say_of_which_python_it_was_made_is_refused(settings: Settings, home: Path, says: str) -> None:
    (home / "env" / "bin").mkdir(parents=True)
    (home / "env" / "pyvenv.cfg").write_text(says)
    (home / "env" / "bin" / "python").symlink_to("/usr/bin/python3")
    with pytest.raises(InterpreterRefused, match=r"env: its pyvenv.cfg has no `home`; create the environment again \(python3 -m venv\)"):
        find_interpreter(settings, str(home / "env" / "bin" / "python"))


def test_finding_the_python_runs_no_program(settings: Settings, home: Path) -> None:
    """A spec names the path, so a program at that path must not run as the worker."""
    fake, trace = home / "env" / "bin" / "python", home / "trace"
    fake.parent.mkdir(parents=True)
    fake.write_text(f"#!/bin/sh\ntouch {trace}\n")
    fake.chmod(0o755)
    (home / "env" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    assert find_interpreter(settings, str(fake)).prefixes == (home / "env",)
    assert not trace.exists()
    # The control: had it run, one would see it.
    subprocess.run([fake], check=True)
    assert trace.exists()
