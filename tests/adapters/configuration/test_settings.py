"""Settings that are parsed from text (workers' networks, identities that vouch for jobs), and limits of numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from justenough.adapters.configuration.settings import Settings, load_settings
from justenough.domain.core.errors import InvalidInput


@pytest.mark.parametrize(
    "text, networks",
    [
        ("", ()),
        (" , ", ()),
        ("10.1.2.3", ("10.1.2.3/32",)),
        ("10.2.0.0/16, 10.1.0.0/16,10.2.0.0/16", ("10.1.0.0/16", "10.2.0.0/16")),
        ("fd00::1,10.1.0.0/16", ("10.1.0.0/16", "fd00::1/128")),
    ],
)
def test_the_workers_networks_have_one_spelling_and_order_however_they_are_written(
    monkeypatch: pytest.MonkeyPatch, text: str, networks: tuple[str, ...]
) -> None:
    monkeypatch.setenv("JUSTENOUGH_WORKER_CIDRS", text)
    assert Settings().worker_cidrs == networks


def test_the_settings_file_may_give_the_workers_networks_as_a_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "justenough.toml").write_text('worker_cidrs = ["10.2.0.0/16", "10.1.2.3"]\n')
    monkeypatch.chdir(tmp_path)
    assert Settings().worker_cidrs == ("10.1.2.3/32", "10.2.0.0/16")


@pytest.mark.parametrize("wrong", ["10.1.2.3/24", "10.1.2", "worker.example", "*", "10.0.0.0/33", "10.1.0.0/16;10.2.0.0/16"])
def test_an_invalid_network_is_named_with_its_setting_and_an_example(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("JUSTENOUGH_WORKER_CIDRS", f"10.9.0.0/16,{wrong}")
    with pytest.raises(ValidationError) as refused:
        Settings()
    (problem,) = refused.value.errors()
    assert problem["loc"] == ("worker_cidrs",)
    assert wrong in problem["msg"]
    assert "write a network like 10.1.2.0/24" in problem["msg"]


def test_passwords_have_a_mount_unless_only_an_identity_provider_is_named() -> None:
    assert Settings().pages_password_mount == "pages"
    assert Settings(pages_oidc_mount="oidc").pages_password_mount is None
    assert Settings(pages_oidc_mount="oidc", pages_mount="pages").pages_password_mount == "pages"


def test_identity_tokens_of_jobs_name_the_console_as_issuer_unless_another_is_set() -> None:
    assert Settings().workload_issuer is None
    assert Settings(console_url="https://console.example/").workload_issuer == "https://console.example"
    assert Settings(console_url="http://console:8080", job_issuer="https://je.example/jobs").workload_issuer == "https://je.example/jobs"


@pytest.mark.parametrize("wrong", ["", "console.example", "ftp://console.example", "https://console.example?x=1", "https://a b"])
def test_a_job_issuer_that_is_not_a_url_is_refused(wrong: str) -> None:
    with pytest.raises(ValidationError, match="job_issuer"):
        Settings(job_issuer=wrong)


@pytest.mark.parametrize("name, wrong, least", [("max_sessions", 0, 1), ("drain", -1, 0)])
def test_a_number_that_the_worker_cannot_work_with_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, wrong: int, least: int) -> None:
    # Temporal's SDK reads 0 slots as its default, 100, and raises an error of its own type for a negative number.
    monkeypatch.setenv(f"JUSTENOUGH_{name.upper()}", str(wrong))
    with pytest.raises(InvalidInput, match=f"setting {name}: must be at least {least}"):
        load_settings()
