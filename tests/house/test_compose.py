"""docker-compose.yml and the Dockerfile are consistent: names exist, privileges match the comments, no port is open to the network.

`make compose-check` lets Compose itself validate the file, and `make containers` starts it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from justenough.adapters.configuration.settings import Settings
from worker.stack.children import FAIRNESS
from worker.stack.paths import StackPaths

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
ONE_SHOT = {name for name, definition in SERVICES.items() if definition["restart"] == "no"}
OURS = {name for name, definition in SERVICES.items() if definition["image"].startswith("justenough/")}
WRITERS = {"prepare", "setup"}
"""The services that write other services' secrets."""

services = pytest.mark.parametrize("service", sorted(SERVICES))


def settings_names() -> set[str]:
    """Return the environment variables that Settings reads."""
    names = {f"JUSTENOUGH_{name.upper()}" for name in Settings.model_fields}
    return names | {"VAULT_ADDR", "VAULT_NAMESPACE", "VAULT_CACERT"}


def mounts(service: str) -> list[tuple[str, str, bool]]:
    """Return source, target and whether it is read-only, for each volume of the service."""
    # A default in the source (`${CONFIG_DIR:-…}`) has colons as well, so split at those before a path or a mode.
    parts = [re.split(r":(?=/|ro)", volume) for volume in SERVICES[service].get("volumes", [])]
    return [(source, target, mode in (["ro"], ["ro,z"])) for source, target, *mode in parts]


def test_the_five_servers_are_defined() -> None:
    assert {"postgres", "temporal", "openbao", "console", "worker"} <= set(SERVICES) - ONE_SHOT


@services
def test_a_service_names_only_networks_volumes_and_services_that_exist(service: str) -> None:
    definition = SERVICES[service]
    named_volumes = {source for source, _, _ in mounts(service) if not source.startswith((".", "$"))}

    assert definition.get("network_mode") == "none" or definition["networks"]
    assert set(definition.get("networks", [])) <= set(COMPOSE["networks"])
    assert named_volumes <= set(COMPOSE["volumes"])
    assert set(definition.get("depends_on", {})) <= set(SERVICES)


@services
def test_a_file_that_a_service_mounts_from_the_repository_exists_and_cannot_be_written(service: str) -> None:
    sources = [(source.removeprefix("${CONFIG_DIR:-").removesuffix("}"), ro) for source, _, ro in mounts(service) if source[0] in ".$"]

    assert [source for source, ro in sources if not ((ROOT / source).exists() and ro)] == []


@pytest.mark.parametrize("service", sorted(ONE_SHOT))
def test_a_service_that_ends_is_waited_for_until_it_has_succeeded(service: str) -> None:
    # `docker compose up --wait` considers the end of any other service a failure.
    waiting = [definition.get("depends_on", {}).get(service) for definition in SERVICES.values()]

    assert {"condition": "service_completed_successfully"} in waiting


def test_temporal_lets_jobs_take_turns_as_in_the_embedded_stack() -> None:
    mounted = SERVICES["temporal"]["environment"]["DYNAMIC_CONFIG_FILE_PATH"]
    ((folder, _, _),) = (mount for mount in mounts("temporal") if mounted.startswith(f"{mount[1]}/"))

    values = {name: entry["value"] for name, (entry,) in yaml.safe_load((ROOT / folder / Path(mounted).name).read_text()).items()}
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

    assert f"'{StackPaths(Path(home)).worker_alive}'" in SERVICES["worker"]["healthcheck"]["test"][-1]


@services
def test_a_published_port_stays_on_loopback(service: str) -> None:
    assert [port for port in SERVICES[service].get("ports", []) if not port.startswith("127.0.0.1:")] == []


@pytest.mark.parametrize("service", sorted(OURS))
def test_the_environment_of_our_programs_has_only_settings_that_exist(service: str) -> None:
    assert set(SERVICES[service].get("environment", {})) - settings_names() == set()


@services
def test_a_service_starts_without_capabilities_and_gains_no_privileges(service: str) -> None:
    assert SERVICES[service]["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in SERVICES[service]["security_opt"]


@services
def test_a_service_has_limits_and_no_writable_disk_but_its_volumes(service: str) -> None:
    definition = SERVICES[service]

    assert definition["read_only"] is True
    assert definition["mem_limit"]
    assert definition["pids_limit"]
    assert [folder for folder in definition["tmpfs"] if not re.search(r":size=\d+[mg]", folder)] == []


@pytest.mark.parametrize("service", sorted(set(SERVICES) - {"worker", "prepare"}))
def test_only_the_worker_and_the_maker_of_secrets_are_root(service: str) -> None:
    assert not SERVICES[service]["user"].startswith("0:")
    assert "cap_add" not in SERVICES[service]


@pytest.mark.parametrize("service", ["worker", "prepare"])
def test_each_capability_has_a_comment_with_its_reason(service: str) -> None:
    added = SERVICES[service]["cap_add"]

    assert added
    assert [capability for capability in added if not re.search(rf"^ +- {capability} # \w+", TEXT, re.MULTILINE)] == []


def test_a_service_sees_the_secrets_of_no_other() -> None:
    seen = {service: {source for source, _, _ in mounts(service) if source.startswith("secrets-")} for service in SERVICES}

    assert seen["prepare"] == {volume for volume in COMPOSE["volumes"] if volume.startswith("secrets-")}
    assert seen["setup"] == {"secrets-setup", "secrets-console", "secrets-worker"}
    for service in set(SERVICES) - WRITERS:
        assert len(seen[service]) <= 1
        assert all(read_only for source, _, read_only in mounts(service) if source.startswith("secrets-"))


def test_no_environment_has_a_password() -> None:
    named = [
        name
        for definition in SERVICES.values()
        for name in definition.get("environment", {})
        if re.search("PASSWORD|PWD|TOKEN|SECRET", name)
    ]
    urls = [definition["environment"]["JUSTENOUGH_DATABASE_URL"] for name, definition in SERVICES.items() if name in {"console", "worker"}]

    assert named == ["POSTGRES_PASSWORD_FILE"]
    assert [url for url in urls if not re.search(r"//justenough@postgres/.*passfile=", url)] == []


def test_openbao_is_reached_by_tls_alone() -> None:
    configuration = (ROOT / "deploy/openbao/openbao.hcl").read_text()

    assert "tls_cert_file" in configuration
    assert "tls_disable" not in configuration
    for service in ("setup", "console", "worker"):
        assert SERVICES[service]["environment"]["VAULT_ADDR"] == "https://openbao:8200"
        assert SERVICES[service]["environment"]["VAULT_CACERT"].endswith("/ca.pem")


def test_jobs_are_kept_from_every_name_of_openbao() -> None:
    names = {alias for network in SERVICES["openbao"]["networks"].values() for alias in network["aliases"]}

    assert set(json.loads(SERVICES["worker"]["environment"]["JUSTENOUGH_VAULT_OTHER_ADDRS"])) == {f"https://{name}:8200" for name in names}


def test_the_example_environment_sets_every_variable_of_the_compose_file_to_its_default() -> None:
    example = (ROOT / "deploy/compose.env.example").read_text()

    assert dict(re.findall(r"^([A-Z_]+)=(.*)$", example, re.MULTILINE)) == dict(re.findall(r"\$\{([A-Z_]+):-([^}]+)\}", TEXT))


def test_worker_and_console_are_targets_of_the_dockerfile_and_only_the_worker_is_root() -> None:
    stages = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL))

    assert {SERVICES[service]["build"]["target"] for service in OURS} <= set(stages)
    assert "USER 10001:10001" in stages["console"]
    assert "bubblewrap" in stages["worker"]
    assert "bubblewrap" not in stages["console"] + stages["base"]


def test_the_images_find_the_programs_of_the_system() -> None:
    (path,) = re.findall(r"^ENV PATH=(\S+)", DOCKERFILE, re.MULTILINE)

    assert {"/usr/sbin", "/sbin", "/usr/bin", "/bin"} <= set(path.split(":"))


def test_every_image_has_a_stand_in_with_the_same_name() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\w+)", (ROOT / "deploy/stand-ins/Dockerfile").read_text(), re.MULTILINE))
    bases = set(re.findall(r"^FROM (\S+:\S+) AS", DOCKERFILE, re.MULTILINE))
    pulled = {SERVICES[service]["image"] for service in set(SERVICES) - OURS}

    assert {re.split("[:/]", image)[0].removesuffix("io") for image in bases | pulled} == stages


def test_every_package_in_the_image_is_installed_by_hash() -> None:
    installs = re.findall(r"pip install ([^&\n]*)", DOCKERFILE)

    # The project's own wheel is built from the source in the image.
    assert [install for install in installs if "--require-hashes" not in install and "--no-index" not in install] == []
