"""The one-shot services of docker-compose.yml on a real OpenBao with compose's own configuration: secrets, first start, later starts, failures.

`make containers` runs the same in containers, with PostgreSQL and Temporal.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from deploy.compose import prepare, setup
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import read_json
from tests.support.free_ports import hold_ports
from tests.support.wait import until
from worker.stack.binaries import Programs

ROOT = Path(__file__).parents[2]
CATALOG = """
resources:
  notes-api:
    title: Notes
    environment: prod
    sensitivity: internal
    owner: leads
    actions:
      read: {issue: {path: kv/data/notes}, max_ttl: 10m, review: {by: 2030-01-31}, revocable: never}
provision:
  - {path: sys/mounts/kv, data: {type: kv, options: {version: "2"}}}
  - {path: kv/data/notes, once: true, data: {data: {key: "${NOTES_VAULT_PASSWORD}"}}}
"""


@dataclass(frozen=True)
class Installation:
    """The volumes of one installation, and its OpenBao."""

    volumes: Path
    settings: Settings
    http: httpx.Client

    @property
    def config(self) -> Path:
        return self.settings.config

    def log_in(self, name: str) -> httpx.Response:
        password = read_json(setup.PEOPLE)[name]["password"]
        return self.http.post(f"auth/people/login/{name}", json={"password": password})


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("compose")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "VOLUMES", folder)
        patch.setattr(prepare, "OWNERS", dict.fromkeys(prepare.OWNERS, os.getuid()))
        patch.setattr(prepare, "OPENBAO_DATA", folder / "data")
        patch.setattr(setup, "SECRETS", folder / "setup")
        for name in ("KEYS", "LOGIN", "PEOPLE"):
            patch.setattr(setup, name, folder / "setup" / getattr(setup, name).name)
        for name in ("data", *prepare.OWNERS):
            (folder / name).mkdir()
        prepare.main()
        yield folder


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, ...]]:
    with hold_ports(tmp_path_factory.mktemp("ports"), 2) as held:
        yield held


@pytest.fixture(scope="module")
def uninitialised(volumes: Path, ports: tuple[int, int]) -> Iterator[Installation]:
    port, cluster = ports
    text = (ROOT / "deploy/openbao/openbao.hcl").read_text()
    for ours, here in {
        "/openbao/file": str(volumes / "data"),
        "0.0.0.0:8200": f"127.0.0.1:{port}",
        "openbao:8200": f"localhost:{port}",
        "openbao:8201": f"localhost:{cluster}",
        "/run/secrets/openbao": str(volumes / "openbao"),
    }.items():
        assert ours in text
        text = text.replace(ours, here)
    (volumes / "openbao.hcl").write_text(text.replace('listener "tcp" {', f'listener "tcp" {{\n  cluster_address = "127.0.0.1:{cluster}"'))
    config = volumes / "config"
    config.mkdir()
    (config / "catalog.yaml").write_text(CATALOG)
    (config / "people.yaml").write_text("ops: [ops]\nlead: [leads, auditors]\n")
    settings = Settings(
        config=config,
        vault_addr=f"https://localhost:{port}",
        vault_cacert=volumes / "setup/ca.pem",
        console_url="http://127.0.0.1:8080",
        worker_approle=volumes / "worker/worker.approle.json",
        console_approle=volumes / "console/console.approle.json",
    )
    trust = ssl.create_default_context(cafile=volumes / "console/ca.pem")
    trust.verify_flags |= ssl.VERIFY_X509_STRICT
    command = ("setpriv", "--pdeathsig=KILL", str(Programs().vault()), "server", f"-config={volumes / 'openbao.hcl'}")
    log = volumes / "openbao.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output) as process,
        httpx.Client(base_url=f"{settings.vault_addr}/v1/", verify=trust, timeout=60, trust_env=False) as http,
    ):
        try:
            until(lambda: is_up(http), f"OpenBao answers: {log.read_text()}")
            yield Installation(volumes, settings, http)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def root_token(uninitialised: Installation) -> str:
    """Return the root token of a first start that ended as soon as the keys were stored."""
    with closing(setup.OpenBao(uninitialised.settings)) as bao:
        setup.initialise(bao)
    return str(read_json(setup.KEYS)["root_token"])


@pytest.fixture(scope="module")
def installation(uninitialised: Installation, root_token: str) -> Installation:
    assert root_token
    setup.set_up(uninitialised.settings)
    return uninitialised


def log_in_as_setup(installation: Installation) -> str:
    with closing(setup.OpenBao(installation.settings)) as bao:
        return setup.log_in(bao)


def is_up(http: httpx.Client) -> bool:
    try:
        return http.get("sys/seal-status").status_code == 200
    except httpx.HTTPError:
        return False


def test_the_first_start_goes_on_where_it_was_interrupted(installation: Installation, root_token: str) -> None:
    refused = installation.http.get("auth/token/lookup-self", headers={"X-Vault-Token": root_token})

    assert refused.status_code == 403
    assert set(read_json(setup.KEYS)) == {"recovery_key"}


def test_people_log_in_with_the_printed_passwords(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    setup.main("people")
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())

    assert set(printed) == {"ops", "lead"}
    for name, password in printed.items():
        answer = installation.http.post(f"auth/people/login/{name}", json={"password": password})
        assert answer.json()["auth"]["token_policies"] == ["je-person"]


def test_before_the_first_start_nobody_can_log_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "PEOPLE", tmp_path / "people.json")
    with pytest.raises(setup.SetupFailed, match=r"nobody has a password here: start everything first \(docker compose up --wait\)"):
        setup.main("people")


def test_worker_and_console_log_in_by_the_files_in_their_volumes(installation: Installation) -> None:
    for service in ("worker", "console"):
        file = installation.volumes / service / f"{service}.approle.json"
        answer = installation.http.post("auth/approle/login", json=read_json(file))

        assert answer.json()["auth"]["token_policies"] == [f"je-{service}"]
        assert file.stat().st_mode & 0o077 == 0


def test_another_start_changes_nothing(installation: Installation, capsys: pytest.CaptureFixture[str]) -> None:
    files = {path: path.read_bytes() for path in installation.volumes.rglob("*") if path.is_file() and path.parent.name in prepare.OWNERS}
    prepare.main()
    setup.set_up(installation.settings)

    assert capsys.readouterr().out.splitlines()[-1].startswith("OpenBao is set up: 0 of ")
    assert {path: path.read_bytes() for path in files} == files


def test_a_new_person_gets_a_password_and_the_others_keep_theirs(installation: Installation) -> None:
    before = read_json(setup.PEOPLE)
    people = installation.config / "people.yaml"
    people.write_text(people.read_text() + "auditor: [auditors]\n")
    setup.set_up(installation.settings)

    assert {name: read_json(setup.PEOPLE)[name] for name in before} == before
    assert installation.log_in("auditor").is_success


def test_somebody_who_is_taken_out_of_a_group_leaves_it_even_as_its_last_member(installation: Installation) -> None:
    people, root = installation.config / "people.yaml", {"X-Vault-Token": log_in_as_setup(installation)}
    people.write_text("ops: [ops]\nlead: [auditors]\nauditor: [auditors]\n")
    setup.set_up(installation.settings)

    assert installation.http.get("identity/group/name/leads", headers=root).json()["data"]["member_entity_ids"] == []
    assert len(installation.http.get("identity/group/name/auditors", headers=root).json()["data"]["member_entity_ids"]) == 2


def test_a_root_token_that_was_already_revoked_is_forgotten(installation: Installation, root_token: str) -> None:
    keys = read_json(setup.KEYS)
    setup.KEYS.write_text(json.dumps({**keys, "root_token": root_token}))
    setup.set_up(installation.settings)

    assert read_json(setup.KEYS) == keys


def test_an_openbao_whose_login_is_lost_is_not_set_up(installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "KEYS", tmp_path / "recovery.json")
    monkeypatch.setattr(setup, "LOGIN", tmp_path / "setup.approle.json")

    with pytest.raises(setup.SetupFailed, match="restore the volume secrets-setup from a backup"):
        setup.set_up(installation.settings)


@pytest.mark.parametrize("text", ["- ops", "ops: ops", "ops: [1]", "ops: [", "OPS!: [ops]"])
def test_people_that_cannot_be_read_are_refused(installation: Installation, tmp_path: Path, text: str) -> None:
    (tmp_path / "people.yaml").write_text(text)
    before = read_json(setup.PEOPLE)

    with pytest.raises(setup.SetupFailed, match=r"people\.yaml: write one line for each person"):
        setup.people_of(tmp_path)
    assert read_json(setup.PEOPLE) == before
    assert installation.log_in("ops").is_success


def test_without_people_yaml_nobody_is_created(tmp_path: Path) -> None:
    assert setup.people_of(tmp_path) is None


def test_the_ca_is_printed_and_an_unknown_command_refused(volumes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup.main("ca")

    assert capsys.readouterr().out == (volumes / "worker/ca.pem").read_text()
    with pytest.raises(setup.SetupFailed, match="there is no command 'person'"):
        setup.main("person")


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"JUSTENOUGH_CONSOLE_PORT": "http"}, r"setup: the settings are invalid: setting console_port: must be a whole number\n"),
        ({"JUSTENOUGH_CONFIG": "/nonexistent"}, r"setup: .*No such file or directory: '/run/secrets/setup/vault'\n"),
    ],
)
def test_each_setup_error_is_one_sentence(setting: dict[str, str], message: str) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **setting}
    done = subprocess.run([sys.executable, ROOT / "deploy/compose/setup.py"], env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert re.fullmatch(message, done.stderr), done.stderr


def test_a_certificate_near_its_end_is_made_again_by_the_same_ca(
    volumes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, authority = volumes / "openbao/tls.pem", (volumes / "setup/ca.pem").read_bytes()
    before = file.read_bytes()
    monkeypatch.setattr(prepare, "RENEW_BEFORE", prepare.CERTIFICATE_LIFETIME + timedelta(days=1))
    prepare.main()

    assert file.read_bytes() != before
    x509.load_pem_x509_certificate(file.read_bytes()).verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    assert (volumes / "setup/ca.pem").read_bytes() == authority
    assert "docker compose restart openbao" in capsys.readouterr().out


def test_only_those_who_need_a_secret_have_it(volumes: Path) -> None:
    files = [path for path in volumes.rglob("*") if path.is_file() and path.parent.name in prepare.OWNERS]
    sources = {**dict.fromkeys(prepare.PASSWORDS, "postgres"), "seal.key": "openbao", "tls.key": "openbao", "ca.key": "setup"}
    contents = {name: (volumes / volume / name).read_bytes() for name, volume in sources.items()}
    having = {name: {path.parent.name for path in files if content in path.read_bytes()} for name, content in contents.items()}

    assert having == {
        "admin": {"postgres"},
        "store": {"postgres", "console", "worker"},
        "temporal": {"postgres", "temporal"},
        "vault": {"postgres", "setup"},
        "seal.key": {"openbao"},
        "tls.key": {"openbao"},
        "ca.key": {"setup"},
    }
    assert [path for path in files if path.stat().st_mode & 0o077] == []
