"""What takes all it can of the machine ends, or is held, as that job alone: its access is dead, its worker well, the job beside it done."""

from __future__ import annotations

import pytest

from tests.chaos.rig import Rig
from tests.people import Human
from tests.shop import Shop, Witness, spec

pytestmark = pytest.mark.servers

LIMITS = {"cpu": "5s", "memory": "128MiB", "processes": 48}
MEMORY = "python3 -c 'import time; held = b\"x\" * (200 * 2**20); time.sleep(600)'"
MANY = "for _ in 1 2 3 4 5 6; do python3 -c 'import time; held = b\"x\" * (50 * 2**20); time.sleep(600)' & done; wait"
FOLDERS = (
    "for f in /tmp /dev/shm $HOME; do dd if=/dev/zero of=$f/x bs=1M; done; python3 -c 'import time; h = b\"x\" * 2**24; time.sleep(600)'"
)
PROCESSOR = "(while :; do :; done) & (while :; do :; done) & wait"
# Its first process forks once: a shell whose fork goes on being refused gives up by itself.
BOMB = "bomb() { bomb | bomb & }; bomb & while :; do :; done"


@pytest.mark.parametrize(
    "script, reason",
    [
        pytest.param(MEMORY, "limits.memory: it held ", id="memory"),
        pytest.param(MANY, "limits.memory: it held ", id="memory of many"),
        pytest.param(FOLDERS, "limits.memory: it held ", id="folders in memory"),
        pytest.param(PROCESSOR, "limits.cpu: it used ", id="processor"),
        pytest.param(BOMB, "limits.cpu: it used ", id="fork bomb"),
    ],
)
def test_a_hog_ends_alone_with_the_limit_that_it_went_over_and_its_access_is_dead(
    rig: Rig, ops: Human, shop: Shop, witness: Witness, *, script: str, reason: str
) -> None:
    worker = rig.worker()
    run = {"command": ["bash", "-c", f"{witness.hand_over}; {script}"], "timeout": "2m", "limits": LIMITS}
    hog = ops.launch(spec(run=run))
    login = witness.login()
    beside = ops.launch(spec("sleep 3; echo whole"))
    seen = ops.until(hog)
    assert (seen["state"], seen["exit_code"], seen["revocation"]["state"]) == ("failed", 137, "confirmed")
    assert str(seen["reason"]).startswith(reason)
    shop.assert_dead(seen, login)
    other = ops.until(beside)
    assert (other["state"], other["exit_code"], other["revocation"]["state"]) == ("succeeded", 0, "confirmed")
    assert rig.worker() is worker
    assert worker.alive
