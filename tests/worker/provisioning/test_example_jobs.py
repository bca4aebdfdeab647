"""The shop's example jobs: each spec fits the catalog, and each program runs with exactly what its spec asks for.

Those that need nothing but credentials run by themselves here, those that talk to their broker in sessions of a whole stack.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from justenough.adapters.configuration.bundle_packer import pack_folder
from justenough.domain.catalog.loader import problems_in_spec, read_catalog, resolve_issue, scope_alias, with_settings
from justenough.domain.jobs.spec import JobSpec, checked_spec, read_spec
from tests.activities.broker.shop_agent import scripted_model
from tests.support.people import ENDED, TAKEN, Human
from tests.worker.provisioning.provisioned_shop import SHOP, Session, Shop, new_job, opened
from worker.stack import Stack

JOBS = sorted((SHOP / "jobs").glob("*.yaml"))
ENDS = {"failing": 3}
SAY = {
    "answer-ticket": "Ticket 4711 (refund) is about order",
    "count-orders": " orders; nobody is logged in now.",
    "support-agent": "What became of it:",
}
"""The text in programs that use their broker."""
ALONE = [file for file in JOBS if file.stem not in SAY]


def spec_of(file: Path, **params: str) -> JobSpec:
    return checked_spec(read_spec(file.read_bytes()), params)


def environment(shop: Shop, worker: Session, spec: JobSpec, *, optional: bool) -> dict[str, str]:
    """Issue and deliver each credential like a session."""
    catalog = with_settings(read_catalog((SHOP / "catalog.yaml").read_bytes()), shop.environment)
    job = new_job()
    path = opened(worker, job)
    given: dict[str, str] = {}
    for access in (one for one in spec.access if optional or not one.optional):
        action = catalog.resources[access.resource].actions[access.action]
        alias = scope_alias(action, spec.data_scope)
        body = {"policies": [action.policy], "ttl": f"{access.ttl}s", "display_name": job, "renewable": False} | (
            {"entity_alias": alias} if alias else {}
        )
        token = Session(worker.address, worker.write(path, **body).json()["auth"]["client_token"])
        place = resolve_issue(action, spec.data_scope).path
        data = unlocked(token, place) if action.locked else token.got(place)
        fields = {**catalog.resources[access.resource].connect, **(data["data"] if isinstance(data.get("data"), dict) else data)}  # type: ignore[dict-item] # narrowed by the test in it
        given |= {variable: str(fields[name]) for variable, name in access.deliver.env.items()}
    return given


def unlocked(token: Session, path: str) -> dict[str, object]:
    """Issue a locked credential, with an approver's authorization."""
    wrapped = token.read(path).json()["wrap_info"]
    login = Session(token.address).write("auth/people/login/security", password="security-password").json()["auth"]
    answer = Session(token.address, login["client_token"]).write("sys/control-group/authorize", accessor=wrapped["accessor"])
    assert answer.json()["data"] == {"approved": True}
    found: dict[str, object] = Session(token.address, wrapped["token"]).write("sys/wrapping/unwrap").json()["data"]
    return found


def run(spec: JobSpec, given: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable if part == "python" else part for part in spec.run.command]
    folder = SHOP / "jobs" / (spec.run.workdir or ".")
    return subprocess.run(command, cwd=folder, env={"PATH": os.defpath, **given}, capture_output=True, text=True, timeout=300, check=False)


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
    assert asking == set(SAY)


@pytest.fixture(scope="module")
def model(whole: Stack) -> Iterator[str]:
    with scripted_model(whole) as url:
        yield url


def until_ended(ops: Human, approvers: tuple[Human, Human], job: str) -> dict[str, Any]:
    """Approve a job's requests as tier 1 and tier 2 until it has ended."""
    while (seen := ops.until(job, "running", *ENDED))["state"] == "running":
        for request in (one for one in seen["requests"] if one["state"] == "pending" and one["tier"]):
            assert approvers[request["tier"] - 1].answer(request).status_code in TAKEN | {409}
    return seen


@pytest.mark.servers
@pytest.mark.parametrize("name", SAY)
def test_each_job_that_requests_access_while_it_runs_gets_and_releases_it(
    ops: Human, lead: Human, security: Human, model: str, name: str
) -> None:
    del model
    file = SHOP / "jobs" / f"{name}.yaml"
    raw = read_spec(file.read_bytes())
    content = pack_folder(file.parent, raw["run"]["workdir"])
    sent = ops.api.post("bundles", content=content, headers={"Content-Type": "application/gzip"}).raise_for_status()
    job = ops.launch(raw, bundle=sent.json()["digest"])
    ops.until(job, "running", "revoking", *ENDED)
    seen = until_ended(ops, (lead, security), job)
    said = "".join(item["text"] for item in ops.api.get(f"jobs/{job}/logs").raise_for_status().json()["items"])
    assert (seen["state"], seen["revocation"]["state"]) == ("succeeded", "confirmed"), said
    assert SAY[name] in said
    ends = [item for item in seen["credentials"] if item["revocable"] == "now"]
    assert len(ends) >= 2
    assert {item["state"] for item in ends} == {"confirmed"}
    ended = next(entry["position"] for entry in ops.ledger(job) if entry["type"] == "revocation.started")
    alone = [entry for entry in ops.ledger(job) if entry["type"] == "credential.confirmed" and entry["position"] < ended]
    assert len(alone) == len(ends), "each was dead before the job was over"


@pytest.mark.servers
@pytest.mark.parametrize("file", ALONE, ids=lambda file: file.stem)
def test_each_job_runs_with_the_access_in_its_spec_and_prints_no_secret(shop: Shop, worker: Session, file: Path) -> None:
    spec = spec_of(file, **({"seconds": "1"} if file.stem.startswith("long-") else {}))
    given = environment(shop, worker, spec, optional=False)
    done = run(spec, given)
    assert done.returncode == ENDS.get(file.stem, 0), done.stderr
    for variable in (name for name in given if name.endswith(("PASSWORD", "TOKEN"))):
        assert given[variable] not in done.stdout + done.stderr


@pytest.mark.servers
def test_refund_triage_refunds_a_ticket_once(shop: Shop, worker: Session) -> None:
    spec = spec_of(SHOP / "jobs" / "refund-triage.yaml", ticket="4712")
    first, second = (run(spec, environment(shop, worker, spec, optional=True)) for _ in range(2))
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
    done = run(spec, environment(shop, worker, spec, optional=False))
    assert (done.returncode, "There is no ticket 5001 in this tenant." in done.stdout) == (1, True), "globex's ticket is not acme's to see"
