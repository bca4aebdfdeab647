"""Jobs do not reach Vault and Temporal, and nobody locks a person out by sending wrong passwords."""

from __future__ import annotations

import socket
from http import HTTPStatus
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.activities.broker.catalog_edits import edit_catalog
from tests.support.people import Human
from tests.support.plain_http import NO_TLS
from tests.support.shop import Shop, spec
from tests.support.wait import until
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers

WRONG_PASSWORDS = 6
"""One more than lock a name for fifteen minutes under Vault's defaults."""
MOUNTS = ("people", "pages")
GUESSES = """
import urllib.error, urllib.request
def answer(url, data=None):
    try:
        return urllib.request.urlopen(urllib.request.Request(url, data, method="POST" if data else "GET"), timeout=30).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return "unreachable"
print(answer("{console}/livez"), *(answer(url, b'{{"password": "wrong"}}') for url in {urls!r}))
"""


def guesses(whole: Stack, *addresses: str, items: tuple[dict[str, str], ...] = ()) -> dict[str, object]:
    """Return a job's spec that tells whether it reaches the console, then sends wrong passwords for oncall to Vault at these addresses."""
    urls = [f"{address}/v1/auth/{mount}/login/oncall" for address in addresses for mount in MOUNTS for _ in range(WRONG_PASSWORDS)]
    run = {"command": ["python3", "-c", GUESSES.format(console=whole.console, urls=urls)], "timeout": "2m"}
    return spec() | {"run": run, "access": list(items)}


@pytest.mark.root
def test_a_job_reaches_no_port_of_temporal(whole: Stack, shop: Shop, ops: Human) -> None:
    """Temporal authenticates nobody here: anyone who reaches it, its HTTP API or its UI can signal workflows and take tasks."""
    port, pid = str(whole.temporal).rpartition(":")[2], shop.pid_of("temporal")
    connections = [found for found in psutil.net_connections("tcp") if found.status == psutil.CONN_LISTEN and found.pid == pid]
    addresses = {f"http://127.0.0.1:{found.laddr.port}" for found in connections}
    assert {f"http://127.0.0.1:{port}", whole.temporal_ui} < addresses
    job = ops.launch(guesses(whole, *addresses, f"http://localhost:{port}", f"http://[::ffff:127.0.0.1]:{port}"))
    assert ops.until(job)["state"] == "succeeded", ops.output(job)
    reached_console, *answers = ops.output(job).split()
    assert (reached_console, set(answers)) == ("200", {"unreachable"})
    # A process outside a job can connect there.
    socket.create_connection(("127.0.0.1", int(port))).close()


def login_statuses(whole: Stack, password: str, *, times: int = 1) -> list[int]:
    """Log oncall in at each mount and return Vault's answers."""
    with httpx.Client(base_url=f"{whole.vault}/v1/auth", timeout=60, trust_env=False, verify=NO_TLS) as vault:
        paths = [f"{mount}/login/oncall" for mount in MOUNTS for _ in range(times)]
        return [vault.post(path, json={"password": password}).status_code for path in paths]


@pytest.mark.root
def test_a_job_cannot_lock_a_person_out(whole: Stack, ops: Human) -> None:
    port = urlsplit(str(whole.vault)).port
    # Vault listens on 127.0.0.1; the other names of this machine lead to the same place.
    addresses = (str(whole.vault), f"http://localhost:{port}", f"http://[::ffff:127.0.0.1]:{port}")
    job = ops.launch(guesses(whole, *addresses))
    assert ops.until(job)["state"] == "succeeded", ops.output(job)
    reached_console, *answers = ops.output(job).split()
    statuses = login_statuses(whole, whole.users["oncall"].password)
    assert (reached_console, set(answers), statuses) == ("200", {"unreachable"}, [HTTPStatus.OK, HTTPStatus.OK])


@pytest.mark.root
def test_a_job_reaches_vault_if_it_is_issued_an_action_that_the_catalog_marks(whole: Stack, shop: Shop, ops: Human) -> None:
    def worker_digests() -> set[str]:
        answer = httpx.get(f"{whole.console}/readyz", timeout=60, trust_env=False, verify=NO_TLS)
        return {worker["config_digest"] for worker in answer.json()["workers"]}

    before = worker_digests()
    with edit_catalog(
        shop, '"database/creds/orders-read-{tenant}"}', '"database/creds/orders-read-{tenant}"}\n        reaches_vault: true'
    ):
        until(lambda: worker_digests() != before, "the worker reads the edited catalog")
        item = {"resource": "orders-db", "action": "read", "ttl": "1m", "reason": "it rotates Vault's roles"}
        # Naming the action is not enough: policy decides only when the running job requests it.
        jobs = [ops.launch(guesses(whole, str(whole.vault), items=({**item, "at": at},))) for at in ("start", "request")]
        assert [ops.until(job)["state"] for job in jobs] == ["succeeded", "succeeded"], [ops.output(job) for job in jobs]
    answers = (["400"] * WRONG_PASSWORDS * len(MOUNTS), ["unreachable"] * WRONG_PASSWORDS * len(MOUNTS))
    assert [ops.output(job).split() for job in jobs] == [["200", *expected] for expected in answers]
    assert login_statuses(whole, whole.users["oncall"].password) == [HTTPStatus.OK, HTTPStatus.OK]


def test_wrong_passwords_lock_nobody_out(whole: Stack) -> None:
    assert set(login_statuses(whole, "wrong", times=WRONG_PASSWORDS)) == {HTTPStatus.BAD_REQUEST}
    assert login_statuses(whole, whole.users["oncall"].password) == [HTTPStatus.OK, HTTPStatus.OK]
