"""The Python of the shop's jobs if there is no checkout: created once, from the shop's own requirements, and readable for jobs."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from justenough.adapters.configuration import example_shop
from justenough.adapters.configuration.settings import Settings
from worker.stack import job_python


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shop as a wheel installs it, whose jobs need no package."""
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "requirements.txt").write_text("")
    monkeypatch.setattr(job_python, "INSTALLED", shop)
    monkeypatch.setattr(job_python, "SHOP_PYTHON", tmp_path / "nowhere")
    monkeypatch.delenv("JUSTENOUGH_JOB_PATH", raising=False)
    # A package here must not count as installed there.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    return shop


def prepare(settings: Settings) -> tuple[Settings, list[str]]:
    steps: list[str] = []
    return job_python.with_job_python(settings, lambda _, text: steps.append(text)), steps


def test_the_python_of_the_shops_jobs_is_made_once_and_jobs_can_read_it(installed: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", config=installed)
    first, steps = prepare(settings)
    again, then = prepare(settings)

    python = tmp_path / "home" / "job-python" / "bin" / "python"
    assert first.job_path == again.job_path == f"{python.parent}:/usr/bin:/bin"
    assert (steps, then) == (["installing the packages of the shop's jobs"], [])
    assert stat.S_IMODE((python.parent.parent / "pyvenv.cfg").stat().st_mode) & 0o044 == 0o044
    found = subprocess.run((python, "-I", "-c", "import justenough"), capture_output=True, text=True, check=False)
    assert "No module named 'justenough'" in found.stderr


def test_a_failed_installation_is_reported_and_tried_again(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python, runs = tmp_path / "python3", tmp_path / "runs"
    # This interpreter makes environments whose pip finds no package.
    python.write_text(f"""#!/bin/sh
echo "$3" >> {runs}
case "$3" in
venv) mkdir -p "$5/bin" && cp "$0" "$5/bin/python" ;;
pip) echo "No matching distribution found" >&2; exit 1 ;;
esac
""")
    python.chmod(0o755)
    monkeypatch.setattr(job_python, "CANDIDATES", (str(python),))
    settings = Settings(home=tmp_path / "home", config=installed)
    for _ in range(2):
        with pytest.raises(
            job_python.NoJobPython, match=r"could not be installed; set JUSTENOUGH_JOB_PATH.*: No matching distribution found$"
        ):
            prepare(settings)
    assert [run for run in runs.read_text().split("\n") if run in {"venv", "pip"}] == 2 * ["venv", "pip"]


def test_an_installation_that_hangs_is_ended_and_reported(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python3"
    python.write_text('#!/bin/sh\n[ "$3" != venv ] || exec sleep 600\n')
    python.chmod(0o755)
    monkeypatch.setattr(job_python, "CANDIDATES", (str(python),))
    monkeypatch.setattr(job_python, "INSTALL_TIMEOUT_S", 0.2)
    with pytest.raises(job_python.NoJobPython, match=r"could not be installed; .* -I -m venv …: it took longer than 0\.2 s$"):
        prepare(Settings(home=tmp_path / "home", config=installed))


def test_no_python_is_made_if_one_is_chosen_or_the_configuration_is_not_the_shops(installed: Path, tmp_path: Path) -> None:
    for settings in (
        Settings(home=tmp_path / "home", config=installed, job_path="/opt/python/bin"),
        Settings(home=tmp_path / "home", config=tmp_path),
    ):
        assert prepare(settings) == (settings, [])


def test_the_shop_is_found_in_a_checkout_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert example_shop.example_shop() == Path("examples/shop")
    monkeypatch.chdir(tmp_path)
    assert example_shop.example_shop() == Path(__file__).parents[3] / "examples" / "shop"
    monkeypatch.setattr(example_shop, "PACKAGE", tmp_path / "justenough")
    monkeypatch.setattr(example_shop, "INSTALLED", tmp_path / "justenough" / "examples" / "shop")
    assert example_shop.example_shop() == tmp_path / "justenough" / "examples" / "shop"
