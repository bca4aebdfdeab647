"""PostgreSQL is unavailable while a job with a space ends and its worker is killed: nothing is confirmed until the space is dropped later."""

from __future__ import annotations

from contextlib import closing

import pytest

from justenough.adapters.store import Store
from justenough.domain.jobs.states import RevocationState
from tests.chaos.rig import Rig
from tests.support.people import Human
from tests.support.shop import LOGIN, Shop, Witness, access, spec
from tests.support.wait import until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(900)]


def test_a_space_is_dropped_after_the_outage_of_its_database(rig: Rig, ops: Human, shop: Shop, witness: Witness) -> None:
    rig.ensure_worker()
    job = ops.launch(spec(f"{witness.hand_over}; sleep 300", access("scratch", "write", deliver=LOGIN)))
    login = witness.login()
    with shop.connect(login) as connection:
        connection.execute("CREATE TABLE found AS SELECT generate_series(1, 10000) AS id")
    with rig.postgres.closed(), closing(Store(rig.stack.database_url)) as store:
        assert ops.api.post(f"jobs/{job}/kill").status_code == 202

        def in_doubt() -> bool:
            seen = store.jobs.get(job)
            assert seen is not None
            assert seen.revocation.state is not RevocationState.CONFIRMED
            return seen.revocation.state in {RevocationState.PENDING, RevocationState.OVERDUE}

        until(in_doubt, "a job whose space cannot be reached is in doubt")
        rig.start_alone()
        until(lambda: ops.job(job)["revocation"]["state"] == "overdue", "its next worker finds no way either")
        assert in_doubt()
        assert (shop.can_log_in(login), shop.spaces_of(job)) == (True, [f"space-{job}"])
    seen = ops.until(job)
    assert (seen["state"], seen["revocation"]["state"]) == ("killed", "confirmed")
    shop.assert_dead(seen, login)
