"""The shop's example jobs: each spec fits the catalog, and each program runs with exactly what its spec requests.

Programs that need nothing but credentials run here by themselves. Those that talk to their broker: tests/activities/broker/test_broker_examples.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from justenough.domain.catalog.loader import problems_in_spec, read_catalog, resolve_issue, scope_alias, with_settings
from justenough.domain.jobs.spec import JobSpec, checked_spec, read_spec
from tests.activities.broker.test_broker_examples import SAID_WITH_BROKER
from tests.worker.provisioning.provisioned_shop import SHOP, Session, Shop, new_job, open_prefix

JOBS = sorted((SHOP / "jobs").glob("*.yaml"))
ENDS = {"failing": 3}
ALONE = [file for file in JOBS if file.stem not in SAID_WITH_BROKER]


def spec_of(file: Path, **params: str) -> JobSpec:
    return checked_spec(read_spec(file.read_bytes()), params)


def build_environment(shop: Shop, worker: Session, spec: JobSpec, *, optional: bool) -> dict[str, str]:
    """Issue and deliver each credential like a session."""
    catalog = with_settings(read_catalog((SHOP / "catalog.yaml").read_bytes()), shop.environment)
    job = new_job()
    path = open_prefix(worker, job)
    given: dict[str, str] = {}
    for access in (one for one in spec.access if optional or not one.optional):
        action = catalog.resources[access.resource].actions[access.action]
        alias = scope_alias(action, spec.data_scope)
        body = {"policies": [action.policy], "ttl": f"{access.ttl}s", "display_name": job, "renewable": False} | (
            {"entity_alias": alias} if alias else {}
        )
        token = Session(worker.address, worker.write(path, **body).json()["auth"]["client_token"])
        place = resolve_issue(action, spec.data_scope).path
        data = unlock_credential(token, place) if action.locked else token.read_data(place)
        fields = {**catalog.resources[access.resource].connect, **(data["data"] if isinstance(data.get("data"), dict) else data)}  # type: ignore[dict-item] # narrowed by the test in it
        given |= {variable: str(fields[name]) for variable, name in access.deliver.env.items()}
    return given


def unlock_credential(token: Session, path: str) -> dict[str, object]:
    """Issue a locked credential, with an approver's authorization."""
    wrapped = token.read(path).json()["wrap_info"]
    login = Session(token.address).write("auth/people/login/security", password="security-password").json()["auth"]
    answer = Session(token.address, login["client_token"]).write("sys/control-group/authorize", accessor=wrapped["accessor"])
    assert answer.json()["data"] == {"approved": True}
    found: dict[str, object] = Session(token.address, wrapped["token"]).write("sys/wrapping/unwrap").json()["data"]
    return found


def run(spec: JobSpec, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable if part == "python" else part for part in spec.run.command]
    folder = SHOP / "jobs" / (spec.run.workdir or ".")
    return subprocess.run(
        command, cwd=folder, env={"PATH": os.defpath, **variables}, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.stem)
def test_each_spec_matches_the_catalog_and_its_bundle_exists(file: Path) -> None:
    spec = spec_of(file)
    assert problems_in_spec(spec, read_catalog((SHOP / "catalog.yaml").read_bytes())) == ()
    assert spec.name == file.stem
    if spec.run.workdir:
        script = next(part for part in spec.run.command if part.endswith((".py", ".sh")))
        assert (file.parent / spec.run.workdir / script).is_file()


def test_exactly_the_jobs_that_use_the_broker_run_beside_one() -> None:
    specs = {file.stem: checked_spec(read_spec(file.read_bytes())) for file in JOBS}
    asking = {name for name, spec in specs.items() if spec.model or any(access.at == "request" for access in spec.access)}
    assert asking == set(SAID_WITH_BROKER)


@pytest.mark.servers
@pytest.mark.parametrize("file", ALONE, ids=lambda file: file.stem)
def test_each_job_runs_with_the_access_in_its_spec_and_prints_no_secret(shop: Shop, worker: Session, file: Path) -> None:
    spec = spec_of(file, **({"seconds": "1"} if file.stem.startswith("long-") else {}))
    given = build_environment(shop, worker, spec, optional=False)
    done = run(spec, given)
    assert done.returncode == ENDS.get(file.stem, 0), done.stderr
    for variable in (name for name in given if name.endswith(("PASSWORD", "TOKEN"))):
        assert given[variable] not in done.stdout + done.stderr


@pytest.mark.servers
def test_refund_triage_refunds_a_ticket_once(shop: Shop, worker: Session) -> None:
    spec = spec_of(SHOP / "jobs" / "refund-triage.yaml", ticket="4712")
    first, second = (run(spec, build_environment(shop, worker, spec, optional=True)) for _ in range(2))
    assert "Refund 5" in first.stdout
    assert "was refunded before" in second.stdout
    with shop.database() as admin:
        found = admin.execute("SELECT count(*), min(created_by) FROM refunds WHERE ticket_id = 4712").fetchone()
    assert found is not None
    assert found[0] == 1
    assert "-token-j-dev-" in str(found[1]), "the refund names the job that wrote it"


@pytest.mark.servers
def test_refund_triage_says_so_if_the_ticket_asks_for_no_refund(shop: Shop, worker: Session) -> None:
    spec = spec_of(SHOP / "jobs" / "refund-triage.yaml", ticket="5001")
    done = run(spec, build_environment(shop, worker, spec, optional=False))
    assert (done.returncode, "There is no ticket 5001 in this tenant." in done.stdout) == (1, True), "globex's ticket is not acme's to see"
