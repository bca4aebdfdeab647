"""A worker that has never read a valid configuration decides nothing: jobs wait for it or for another, and it goes on revoking."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.chaos.rig import Rig, Worker, watcher_of
from tests.support.people import Human
from tests.support.plain_http import NO_TLS
from tests.support.shop import Shop, Witness, access, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers


@pytest.fixture
def folder(rig: Rig, tmp_path: Path) -> Path:
    """A copy of the configuration, whose policies have a schema that the worker's code does not know."""
    copy = shutil.copytree(rig.stack.config, tmp_path / "config")
    schema = copy / "policies" / "schema.cedarschema"
    schema.write_text(schema.read_text() + "\nentity Tomorrow = {};\n@unknown syntax")
    return copy


@pytest.fixture
def blind(rig: Rig, folder: Path) -> Iterator[Worker]:
    """The only worker, which has no valid configuration."""
    worker = rig.start_alone(ready=False, JUSTENOUGH_CONFIG=str(folder))
    until(lambda: b"worker only revokes" in worker.log.read_bytes(), "a worker runs", within=180)
    assert b"worker ready" not in worker.log.read_bytes()
    yield worker
    worker.kill()


def readiness(rig: Rig) -> dict[str, Any]:
    return dict(httpx.get(f"{rig.stack.console}/readyz", timeout=60, trust_env=False, verify=NO_TLS).json())


def reported(rig: Rig, worker: Worker) -> list[dict[str, Any]]:
    """What a worker's own process reported of itself."""
    return [one for one in readiness(rig)["workers"] if one["name"].endswith(f"-{worker.process.pid}")]


def test_a_worker_without_a_configuration_revokes_but_confirms_nothing_of_unknown_targets(
    rig: Rig, worker: Worker, ops: Human, shop: Shop, witness: Witness, request: pytest.FixtureRequest
) -> None:
    job = ops.launch(spec(f"{witness.hand_over}; sleep 300", access()))
    login = witness.login()
    assert shop.can_log_in(login)
    # The watcher knows the targets, and would revoke and confirm when its worker is killed.
    watcher_of(worker).kill()
    blind = request.getfixturevalue("blind")
    assert not worker.alive
    assert ops.api.post(f"jobs/{job}/kill").status_code == 202
    until(lambda: not shop.can_log_in(login), "the login is dead")
    until(lambda: b"NotConfirmed" in blind.log.read_bytes() or ops.job(job)["revocation"]["state"] == "overdue", "it cannot confirm that")
    assert {item["state"] for item in ops.job(job)["credentials"]}.isdisjoint({"confirmed", "expired"})
    assert any("no valid configuration" in why for why in ops.job(job)["revocation"]["failures"])
    rig.start()
    shop.assert_dead(ops.until(job), login)


def test_jobs_wait_until_the_workers_configuration_is_fixed_and_the_console_says_why(
    rig: Rig, blind: Worker, folder: Path, ops: Human, shop: Shop
) -> None:
    job = ops.launch(spec("true", access()))
    (told,) = until(lambda: reported(rig, blind), "it reports itself")
    assert told["config_digest"] is None
    assert "no jobs are taken until it is fixed" in told["config_alarm"]
    assert f"worker {told['name']}: " in readiness(rig)["config_alarm"]
    metrics = httpx.get(f"{rig.stack.console}/metrics", timeout=60, trust_env=False, verify=NO_TLS).text
    assert re.search(r'^justenough_workers\{configuration="none"\} [1-9]', metrics, re.MULTILINE)
    assert ops.job(job)["state"] == "pending"
    schema = folder / "policies" / "schema.cedarschema"
    schema.write_bytes((rig.stack.config / "policies" / "schema.cedarschema").read_bytes())
    shop.assert_dead(ops.until(job, "succeeded"))
    (told,) = until(lambda: [one for one in reported(rig, blind) if one["config_digest"]], "it reports what it has in force")
    assert told["config_alarm"] is None
    until(lambda: readiness(rig)["config_alarm"] is None, "workers that were killed are forgotten")
