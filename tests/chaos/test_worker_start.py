"""A worker that starts while a server is unavailable prints one sentence and exits, for its supervisor to restart it. Otherwise it only logs."""

from __future__ import annotations

import pytest

from tests.chaos.rig import Rig, Worker

pytestmark = pytest.mark.servers


def failure_output(worker: Worker) -> list[str]:
    """Return the output, besides the log, of a worker that cannot start."""
    assert worker.process.wait(180) == 1
    return plain_output(worker)


def plain_output(worker: Worker) -> list[str]:
    return [line for line in worker.log.read_text().splitlines() if not line.startswith("{")]


@pytest.fixture(scope="module")
def without_vault(rig: Rig) -> Worker:
    """Start a worker with a wrong Vault address; it gives up."""
    return rig.start(ready=False, forked=False, VAULT_ADDR="http://127.0.0.1:9")


@pytest.mark.usefixtures("without_vault")
def test_a_worker_that_starts_prints_only_its_log(rig: Rig) -> None:
    worker = rig.start(forked=False)
    assert worker.alive
    assert plain_output(worker) == []


def test_a_worker_without_temporal_names_the_address(rig: Rig) -> None:
    with rig.temporal.closed():
        (sentence,) = failure_output(rig.start(ready=False, forked=False))
    assert sentence == (
        f"worker cannot start: Temporal at 127.0.0.1:{rig.temporal.port} does not answer (Connection refused); "
        "check JUSTENOUGH_TEMPORAL_ADDRESS (or TEMPORAL_ADDRESS) and that server"
    )


def test_a_worker_without_vault_names_the_address(without_vault: Worker) -> None:
    (sentence,) = failure_output(without_vault)
    assert sentence.startswith("worker cannot start: ")
    assert "http://127.0.0.1:9" in sentence
