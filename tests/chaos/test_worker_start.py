"""A worker that starts while a server is unavailable prints one sentence and exits, for its supervisor to restart it. Otherwise it only logs."""

from __future__ import annotations

from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from tests.chaos.rig import Rig, Worker
from tests.support.people import Human
from tests.support.shop import Shop, access, spec
from tests.support.tls_authority import create_authority
from tests.support.tls_front import serve_tls, server_context

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


def test_a_worker_runs_jobs_over_tls_with_a_client_certificate(rig: Rig, ops: Human, shop: Shop, tmp_path: Path) -> None:
    authority, _ = create_authority(tmp_path, "temporal.test", "worker.test")
    context, certificate = server_context(authority, "temporal.test", demands_client=True), str(tmp_path / "worker.test.pem")
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serve_tls(str(rig.stack.temporal), context)) as address:
        rig.start_alone(
            forked=False,
            JUSTENOUGH_TEMPORAL_ADDRESS=address,
            TEMPORAL_TLS_SERVER_CA_CERT_PATH=str(authority),
            TEMPORAL_TLS_SERVER_NAME="temporal.test",
            TEMPORAL_TLS_CLIENT_CERT_PATH=certificate,
            TEMPORAL_TLS_CLIENT_KEY_PATH=certificate,
        )
        shop.assert_dead(ops.until(ops.launch(spec("true", access())), "succeeded"))
        rig.ensure_worker()


def test_a_worker_without_vault_names_the_address(without_vault: Worker) -> None:
    (sentence,) = failure_output(without_vault)
    assert sentence.startswith("worker cannot start: ")
    assert "http://127.0.0.1:9" in sentence


def test_a_worker_whose_login_may_do_nothing_does_not_get_ready(rig: Rig) -> None:
    (sentence,) = failure_output(rig.start(ready=False, forked=False, JUSTENOUGH_INSTALLATION="other"))
    assert sentence.startswith("worker cannot start: Vault does not let this login manage jobs of the installation other (")
    assert sentence.endswith("give the login the policy je-worker, which `justenough vault apply` writes for one JUSTENOUGH_INSTALLATION")
