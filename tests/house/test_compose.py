"""docker-compose.yml and the Dockerfile are consistent: names exist, privileges match the comments, no port is open to the network.

`make compose-check` lets Compose itself validate the file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from justenough.adapters.configuration.settings import Settings
from worker.stack.paths import StackPaths
from worker.stack.temporal import FAIRNESS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
ONE_SHOT = {"temporal-attributes", "vault-setup"}
OURS = {"console", "worker", "vault-setup"}

services = pytest.mark.parametrize("service", sorted(SERVICES))


def settings_names() -> set[str]:
    """Return the environment variables that Settings reads."""
    names = {f"JUSTENOUGH_{name.upper()}" for name in Settings.model_fields}
    return names | {"VAULT_ADDR", "VAULT_NAMESPACE", "VAULT_CACERT"}


def test_the_five_servers_are_defined() -> None:
    assert {"postgres", "temporal", "openbao", "console", "worker"} <= set(SERVICES)


@services
def test_a_service_names_only_networks_volumes_secrets_and_services_that_exist(service: str) -> None:
    definition = SERVICES[service]
    named_volumes = {volume.partition(":")[0] for volume in definition.get("volumes", []) if not volume.startswith((".", "/", "$"))}

    assert definition["networks"]
    assert set(definition["networks"]) <= set(COMPOSE["networks"])
    assert named_volumes <= set(COMPOSE["volumes"])
    assert set(definition.get("secrets", [])) <= set(COMPOSE["secrets"])
    assert set(definition.get("depends_on", {})) <= set(SERVICES)


@services
def test_a_file_that_a_service_mounts_from_the_repository_exists(service: str) -> None:
    sources = [volume.partition(":")[0] for volume in SERVICES[service].get("volumes", []) if volume.startswith("./")]

    assert [source for source in sources if not (ROOT / source).exists() and source != "./deploy/secrets"] == []


def test_temporal_lets_jobs_take_turns_as_in_the_embedded_stack() -> None:
    (file, mounted, _) = SERVICES["temporal"]["volumes"][0].split(":")

    assert SERVICES["temporal"]["environment"]["DYNAMIC_CONFIG_FILE_PATH"] == mounted
    values = {name: entry["value"] for name, (entry,) in yaml.safe_load((ROOT / file).read_text()).items()}
    assert {name: str(value).lower() for name, value in values.items()} == FAIRNESS


@services
def test_an_image_is_pinned_or_built_here(service: str) -> None:
    image = SERVICES[service]["image"]

    assert "build" in SERVICES[service] or re.fullmatch(r"[a-z/-]+:\d+(\.\d+)*", image)
    assert not image.endswith(":latest")


@pytest.mark.parametrize("service", sorted(set(SERVICES) - ONE_SHOT))
def test_a_server_has_a_health_check(service: str) -> None:
    assert SERVICES[service]["healthcheck"]["test"][0] == "CMD"


def test_the_worker_s_health_check_reads_the_liveness_file_of_the_worker() -> None:
    (home,) = re.findall(r"JUSTENOUGH_HOME=(\S+)", DOCKERFILE)

    assert f"'{StackPaths.of(Path(home)).worker_alive}'" in SERVICES["worker"]["healthcheck"]["test"][-1]


@services
def test_a_published_port_stays_on_loopback(service: str) -> None:
    assert [port for port in SERVICES[service].get("ports", []) if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("service", sorted(OURS))
def test_the_environment_of_our_programs_has_only_settings_that_exist(service: str) -> None:
    assert set(SERVICES[service]["environment"]) - settings_names() == set()


@pytest.mark.parametrize("service", sorted(OURS))
def test_ours_start_without_capabilities_and_gain_no_privileges(service: str) -> None:
    assert SERVICES[service]["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in SERVICES[service]["security_opt"]


def test_the_console_runs_without_root_or_a_writable_disk() -> None:
    console = SERVICES["console"]

    assert console["user"] == "10001:10001"
    assert console["read_only"] is True
    assert "cap_add" not in console


def test_each_capability_of_the_worker_has_a_comment_with_its_reason() -> None:
    added = SERVICES["worker"]["cap_add"]

    assert added
    assert [capability for capability in added if not re.search(rf"^ +- {capability} # \w+", TEXT, re.MULTILINE)] == []


def test_the_compose_file_contains_no_password() -> None:
    secrets = re.findall(r"^ +\w*(?:PASSWORD|PWD|TOKEN)\w*: (.+)$", TEXT, re.MULTILINE)

    assert secrets
    assert [secret for secret in secrets if not secret.startswith("${")] == []


def test_the_example_environment_sets_every_variable_of_the_compose_file() -> None:
    variables = set(re.findall(r"\$\{([A-Z_]+)", TEXT))
    example = (ROOT / "deploy/compose.env.example").read_text()

    assert set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE)) == variables


def test_worker_and_console_are_targets_of_the_dockerfile_and_only_the_worker_is_root() -> None:
    stages = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL))

    assert {SERVICES[service]["build"]["target"] for service in OURS} <= set(stages)
    assert "USER 10001:10001" in stages["console"]
    assert "bubblewrap" in stages["worker"]
    assert "bubblewrap" not in stages["console"] + stages["base"]


def test_every_package_in_the_image_is_installed_by_hash() -> None:
    installs = re.findall(r"pip install ([^&\n]*)", DOCKERFILE)

    # The project's own wheel is built from the source in the image.
    assert [install for install in installs if "--require-hashes" not in install and "--no-index" not in install] == []
