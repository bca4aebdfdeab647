"""What a sweep reports about each target."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from psycopg import sql

from activities.sweep_activity import SweepActivities
from justenough.adapters.targets.postgres import TargetInspection
from justenough.adapters.targets.reaper import Reaper
from justenough.domain.readmodel.views import TargetCheck
from justenough.services.target_checks import target_checks
from tests.activities.catalog_variants import open_changed_desk
from tests.activities.vault_shop import Desk
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import NOW
from tests.support.silent_listener import swallow_connections


def test_a_target_fails_its_check_if_one_of_its_observers_cannot_look_into_it() -> None:
    inspection = TargetInspection(inspected=("a:1/x", "b:1/x"), failures=("target a:1/x: TargetDown", "target [::1]:5432/y: slow: very"))
    assert [(check.name, check.failure) for check in target_checks(inspection, at=NOW)] == [
        ("a:1/x", "TargetDown"),
        ("b:1/x", None),
        ("[::1]:5432/y", "slow: very"),
    ]


def test_a_check_names_every_failure_of_its_target_once_and_the_actions_that_it_concerns() -> None:
    inspection = TargetInspection(inspected=("a:1/x", "b:1/x"))
    failures = ("target a:1/x: user u (job j) is alive", "target a:1/x: no reaper", "target a:1/x: no reaper")
    checks = target_checks(inspection, at=NOW, failures=failures, actions={"a:1/x": ("shop:read",)})
    assert [(check.name, check.failure, check.actions) for check in checks] == [
        ("a:1/x", "user u (job j) is alive; no reaper", ("shop:read",)),
        ("b:1/x", None, ()),
    ]


class NoTemporal:
    """A Temporal that nobody may ask: these sweeps see no job that runs."""

    def get_workflow_handle(self, job: str) -> object:
        raise AssertionError(job)


async def sweep_once(at: Desk) -> TargetCheck:
    """Run a sweep and return what it recorded about the shop's target."""
    await SweepActivities(at.deps, cast("Any", NoTemporal())).run()
    (check,) = at.deps.store.targets.all()
    return check


@pytest.mark.servers
async def test_a_sweep_finds_a_target_well_and_records_whose_users_are_there(at: Desk) -> None:
    check = await sweep_once(at)
    assert check.failure is None
    assert {"orders-db:read", "refunds-db:write"} <= set(check.actions or ())
    assert "helpdesk-api:read" not in (check.actions or ())


@pytest.mark.servers
async def test_a_target_at_which_the_worker_could_not_end_users_fails_although_its_observer_answers(at: Desk, tmp_path: Path) -> None:
    def without_reaper(catalog: dict[str, Any]) -> None:
        for resource in catalog["resources"].values():
            if "target" in resource:
                resource["target"]["end"] = "database/creds/nobody"

    with open_changed_desk(at.shop, tmp_path, without_reaper) as broken:
        check = await sweep_once(broken)
        assert check.failure is not None
        assert check.failure.startswith("users cannot be ended: ")
        since = check.since
        at.clock.ahead = timedelta(seconds=10)
        assert (await sweep_once(broken)).since == since
        assert broken.deps.targets.job_ids()[1].failures == (), "its observer answers"


@pytest.mark.servers
def test_a_reaper_that_hangs_delays_the_check_of_no_other_target(at: Desk, tmp_path: Path) -> None:
    with swallow_connections() as address:
        host, _, port = address.partition(":")

        def add_silent(catalog: dict[str, Any]) -> None:
            catalog["resources"]["scratch"]["target"]["postgres"] = f"host={host} port={port} dbname=shop"

        with open_changed_desk(at.shop, tmp_path, add_silent) as desk:
            began = time.monotonic()
            (failure,) = desk.deps.targets.check_reapers(timeout_s=1.5)
            assert failure == f"target {address}/shop: users cannot be ended: no answer in 1.5 s"
            assert time.monotonic() - began < 10


@pytest.mark.servers
async def test_a_user_that_the_sweep_cannot_end_is_named_with_its_job_and_its_session(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    job = at.job()
    user = f"v-{job}-left"
    at.deps.store.ledger.append([samples.job_end("failed", job, at=at.deps.now())])
    with psycopg.connect(at.shop.superuser, autocommit=True) as database:
        database.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'of a test'").format(sql.Identifier(user)))
        database.execute(sql.SQL("GRANT CONNECT ON DATABASE shop TO {}").format(sql.Identifier(user)))
    with (
        psycopg.connect(at.shop.superuser, user=user, password="of a test", autocommit=True) as connection,
        monkeypatch.context() as patched,
    ):
        # As if its session did not react to interrupts.
        patched.setattr(Reaper, "end", lambda *_: TargetInspection())
        check = await sweep_once(at)
        pid = connection.info.backend_pid
        assert check.failure is not None
        assert f"users of jobs that have ended are alive: {user} (job {job}; left: 1 sessions, a login" in check.failure
        assert f"; session {pid} of {user} has been running" in check.failure
    assert (await sweep_once(at)).failure is None
    assert at.shop.users_of(job) == []
