"""Each safety net alone, with all others off, revokes every credential after every kind of ending; the time is measured."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from activities.revocation_activities import MAX_CONCURRENT_REVOCATIONS
from tests.chaos.exposure import NETS, ExposedJob, Lab, NetCase, strike_together
from tests.chaos.faulty_worker import LABEL
from tests.chaos.rig import Rig, Worker
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Shop, access, spec
from tests.support.wait import until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]

SHORT = "8s"
GENTLE = ("success", "failure", "cancel", "kill")
WORKER = "worker kill -9"
VAULT_GONE = "worker and Vault gone"


def case_pairs(net: str, *endings: str, ttl: str = "5m") -> list[NetCase]:
    """Return cases for access without approval and for approved access."""
    return [NetCase(net, ending, action, ttl) for ending in endings for action in ("read", "write")]


AT_ONCE = [
    *case_pairs("session", *GENTLE, "terminate", "delete"),
    *case_pairs("compensation", *GENTLE),
    NetCase("guard", "terminate", "write"),
    NetCase("guard", "delete", "write"),
    *case_pairs("sweep", "terminate"),
    NetCase("sweep", "terminate with guard", "write"),
]
IN_TIME = [
    *case_pairs("session", "timeout"),
    *case_pairs("compensation", "timeout"),
    *case_pairs("session", "grant over", ttl=SHORT),
    *case_pairs("vault", "success", "terminate", ttl=SHORT),
]
"""Endings by a time that soon is over, held apart so that launching others does not use it up."""
WITH_WORKER = case_pairs("compensation", WORKER)
CROWD = [*WITH_WORKER, *(MAX_CONCURRENT_REVOCATIONS - 1) * [NetCase("compensation", WORKER, "write")]]
"""Jobs of one worker, more than another revokes at once: each but one has a guard too, which does the same beside the job."""
WITHOUT_SERVERS = case_pairs("target", VAULT_GONE, ttl=SHORT)
CASES = [*AT_ONCE, *IN_TIME, *WITH_WORKER, *WITHOUT_SERVERS]

MAX_EXPOSURE_S = 120
"""Seconds that a net may take at most on a busy machine: less than half of what its credential would have had.
docs/explanation/reliability.md tells what each takes on one that is not.
"""
STATES = {
    ("session", "success"): "succeeded",
    ("session", "grant over"): "succeeded",
    ("session", "failure"): "failed",
    ("session", "timeout"): "timed_out",
}
"""The ending of a job whose session can report it, and which nobody asked to end."""
END_STATES = {"cancel": "cancelled", "kill": "killed", "terminate": "lost", "terminate with guard": "lost", "delete": "lost"}


@dataclass(frozen=True)
class FinalState:
    """The final state of a job, with all nets on again."""

    struck: ExposedJob
    seen: dict[str, Any]


@pytest.fixture(scope="module")
def ended(rig: Rig, shop: Shop, ops: Human, lead: Human) -> Iterator[list[FinalState]]:
    """Cause faults in many jobs, each with one net; then restore everything and wait for each outcome."""
    with Lab.open(shop, ops, lead, pause=3) as lab:
        struck = strike_all(lab, rig)
        rig.ensure_worker()
        for item in struck:
            ops.until(item.job)
            # A sweep and a guard may both be at it: who comes second looks twice again.
            until(partial(is_confirmed, ops, item.job), f"{item.case} is confirmed")
        yield [FinalState(item, ops.job(item.job)) for item in struck]


def is_confirmed(ops: Human, job: str) -> bool:
    return bool(ops.job(job)["revocation"]["state"] == "confirmed")


def strike_all(lab: Lab, rig: Rig) -> list[ExposedJob]:
    first = rig.start_alone(labelled=True)
    with_worker = lab.hold(CROWD)
    second = rig.start(labelled=True)
    strike_together(lab, with_worker, first.kill)
    struck = lab.hold(AT_ONCE)
    for item in struck:
        lab.strike(item)
    for item in (in_time := lab.hold(IN_TIME)):
        lab.strike(item)
    for item in in_time:
        if item.exposure >= 0 and item.case.ending == "grant over":
            # The job goes on without the credential, and ends by itself.
            item.line.sendall(b"0\n")
    without = lab.hold(WITHOUT_SERVERS)
    struck += [*with_worker, *in_time]
    wait(item.refused_at for item in struck)
    with rig.freeze("vault"):
        strike_together(lab, without, second.kill)
        wait(item.refused_at for item in without)
    return [*struck, *without]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_safety_net_alone_ends_the_login_and_the_jobs_outcome_is_true(
    case: NetCase, ended: list[FinalState], ops: Human, shop: Shop
) -> None:
    struck, seen = next((one.struck, one.seen) for one in ended if one.struck.case == case)
    assert struck.exposure < MAX_EXPOSURE_S
    shop.assert_dead(seen, struck.login)
    assert seen["revocation"]["state"] == "confirmed"
    assert seen["state"] == END_STATES.get(case.ending, STATES.get((case.net, case.ending), "failed"))
    entries = ops.ledger(struck.job)
    assert [entry["type"] for entry in entries].count("job.ended") == 1
    if case.net in NETS and case.ending != "grant over":
        # This safety net revoked, and not another one that should have been off.
        assert next(entry["data"]["by"] for entry in entries if entry["type"] == "revocation.started") == case.net


def test_the_revocations_of_a_dead_workers_jobs_do_not_wait_for_each_other(ended: list[FinalState]) -> None:
    exposures = [one.struck.exposure for one in ended if one.struck.case in WITH_WORKER]
    assert len(exposures) == len(CROWD)
    assert max(exposures) < MAX_EXPOSURE_S


def test_a_denied_request_was_never_issued_and_needs_no_net(ops: Human, lead: Human, shop: Shop, worker: Worker) -> None:
    job = ops.launch(spec("true", access(action="write"), labels={LABEL: ".".join(NETS)}))
    request = ops.until(job, "awaiting_approval")["requests"][0]
    assert (shop.users_of(job), shop.tokens_of(job)) == ([], [])
    assert lead.answer(request, "deny").status_code in ACCEPTED_STATUSES
    seen = ops.until(job)
    assert (seen["state"], seen["credentials"]) == ("denied", [])
    shop.assert_dead(seen)
