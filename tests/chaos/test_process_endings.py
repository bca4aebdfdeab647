"""Whatever becomes of the worker at whatever step of a session: nothing that was issued works afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from tests.chaos.rig import Rig
from tests.people import Human
from tests.shop import Login, Shop, Witness, spec

pytestmark = pytest.mark.servers

CREDS = r"/v1/database/creds/orders-read"


@dataclass(frozen=True)
class Struck:
    """Jobs at one step each when their worker was killed, as they ended."""

    asked: str
    answered: str
    running: str
    revoking: str
    logins: tuple[Login, ...]


def launched(ops: Human, rig: Rig, path: str, script: str = "sleep 300", *, method: str = "GET", answer: bool = False) -> str:
    """Launch a job that stops at a request to Vault."""
    order = ops.order(spec(script))
    hold = rig.gate.hold(path, method=method, job=order["id"], answer=answer)
    assert ops.api.post("jobs", json=order).status_code == 201
    hold.came()
    return str(order["id"])


@pytest.fixture(scope="module")
def struck(rig: Rig, ops: Human, shop: Shop) -> Iterator[Struck]:
    """Kill a worker with four jobs in it, then start another."""
    with closing(Witness()) as witness:
        yield struck_down(rig, ops, shop, witness)


def struck_down(rig: Rig, ops: Human, shop: Shop, witness: Witness) -> Struck:
    worker = rig.worker()
    asked = launched(ops, rig, CREDS)
    answered = launched(ops, rig, CREDS, answer=True)
    running = ops.launch(spec(f"{witness.hand_over}; sleep 300"))
    logins = [witness.login()]
    revoking = launched(ops, rig, "/v1/sys/leases/revoke/", witness.hand_over, method="PUT")
    logins.append(witness.login())
    assert all(map(shop.opens_for, logins))
    assert shop.users_of(answered)
    worker.kill()
    # What was asked for lands now, after its session has died.
    rig.mend()
    rig.worker()
    return Struck(asked, answered, running, revoking, tuple(logins))


@pytest.mark.parametrize("step", ["asked", "answered", "running", "revoking"])
def test_a_worker_killed_at_any_step_leaves_nothing_alive(struck: Struck, step: str, ops: Human, shop: Shop) -> None:
    job = getattr(struck, step)
    seen = ops.until(job, within=90)
    assert (seen["state"], seen["reason"], seen["revocation"]["state"]) == ("failed", "worker_lost", "confirmed")
    shop.assert_dead(seen, *struck.logins)
    assert [entry["type"] for entry in ops.ledger(job)].count("job.ended") == 1
