"""What a connection reads at a standby node of an OpenBao cluster whose copy is late."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from justenough.adapters.vault.connection import VaultConnection
from justenough.adapters.vault.errors import VaultUnavailable, refusal
from justenough.domain.core.secret import Secret
from tests.activities.tcp_door import Door
from tests.support.canned_server import serve_canned_answers
from tests.support.free_ports import hold_ports
from tests.support.wait import until
from worker.provisioning.admin_client import AdminClient, VaultNotReady
from worker.stack.binaries import Programs
from worker.stack.doctor.vault import vault_findings

pytestmark = pytest.mark.servers

CONFIGURATION = """
api_addr = "http://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:{reached_at}"
storage "raft" {{
  path = "{folder}/{name}"
  node_id = "{name}"
  {join}
}}
seal "static" {{
  current_key_id = "1"
  current_key = "file://{folder}/seal.key"
}}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster}"
  tls_disable = true
}}
"""


@dataclass(frozen=True)
class Cluster:
    """An active node, a standby, and the door through which the standby's copy is kept up to date."""

    active: httpx.Client
    standby: httpx.Client
    root: Secret
    replication: Door

    @property
    def standby_address(self) -> str:
        return str(self.standby.base_url).removesuffix("/v1/")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Serve two nodes. The standby has no vote, so that the active node stays active without it."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "seal.key").write_bytes(b"k" * 32)
    with ExitStack() as stack:
        active, active_cluster, standby, standby_cluster = stack.enter_context(hold_ports(folder, 4))
        door = stack.enter_context(closing(Door(standby_cluster)))
        first = serve(stack, folder, "active", active, active_cluster, reached_at=active_cluster)
        made = first.post("sys/init", json={"recovery_shares": 1, "recovery_threshold": 1}).raise_for_status().json()
        until(lambda: first.get("sys/health").status_code == 200, "the first node is active")
        join = f'retry_join {{\n leader_api_addr = "http://127.0.0.1:{active}"\n }}\n retry_join_as_non_voter = true'
        second = serve(stack, folder, "standby", standby, standby_cluster, reached_at=door.port, join=join)
        until(lambda: second.get("sys/health").status_code == 429, "the second node is a standby")
        for client in (first, second):
            client.headers["X-Vault-Token"] = made["root_token"]
        until(lambda: second.get("auth/token/lookup-self").is_success, "the standby has what the active node has")
        yield Cluster(first, second, Secret(made["root_token"]), door)


def serve(stack: ExitStack, folder: Path, name: str, port: int, cluster: int, *, reached_at: int, join: str = "") -> httpx.Client:
    """Serve one node until the stack ends, and return a client of it."""
    file = folder / f"{name}.hcl"
    (folder / name).mkdir()
    file.write_text(CONFIGURATION.format(port=port, cluster=cluster, reached_at=reached_at, folder=folder, name=name, join=join))
    output = stack.enter_context((folder / f"{name}.log").open("wb"))
    command = ("setpriv", "--pdeathsig=KILL", str(Programs().vault()), "server", f"-config={file}")
    process = stack.enter_context(subprocess.Popen(command, stdout=output, stderr=output))
    stack.callback(process.kill)
    client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}/v1/", timeout=60, trust_env=False))
    until(lambda: answers(client), f"{name} answers")
    return client


def answers(client: httpx.Client) -> bool:
    try:
        return bool(client.get("sys/seal-status").status_code)
    except httpx.TransportError:
        return False


def test_a_token_that_a_standby_does_not_know_yet_counts_as_alive_and_is_revoked(cluster: Cluster, tmp_path: Path) -> None:
    login, held = tmp_path / "login.json", tmp_path / "token"
    held.write_text(cluster.root.reveal())
    login.write_text(json.dumps({"method": "token", "token_file": str(held)}))
    with closing(VaultConnection(cluster.standby_address)) as vault, cluster.replication.hanging():
        vault.login_from_file(login)
        token = cluster.active.post("auth/token/create", json={"ttl": "10m"}).raise_for_status().json()["auth"]
        handle = {"accessor": token["accessor"]}
        by_itself = cluster.standby.post("auth/token/lookup-accessor", json=handle)
        assert by_itself.status_code == 400, "the standby's own copy is late"
        assert vault.read_data("post", "auth/token/lookup-accessor", handle)["accessor"] == token["accessor"]

        vault.call_own("post", "auth/token/revoke-accessor", handle)
        assert cluster.active.post("auth/token/lookup-accessor", json=handle).status_code == 400


def test_an_administrator_reads_at_a_standby_what_they_just_wrote(cluster: Cluster) -> None:
    with cluster.replication.hanging(), AdminClient(cluster.standby_address, cluster.root) as vault:
        vault.write("identity/entity/name/zoe", {"disabled": False})
        entity = vault.read("identity/entity/name/zoe")
        assert entity is not None
        assert entity["name"] == "zoe"


def test_doctor_does_not_object_to_a_standby_that_forwards(cluster: Cluster) -> None:
    findings = {finding.what: finding.level for finding in vault_findings(cluster.standby_address, token=cluster.root)}
    assert findings["vault seal"] == "ok"
    assert "vault" not in findings
    assert "vault longest request" in findings, "the rest was checked"


@pytest.mark.parametrize(
    "status, body",
    [
        (307, b""),
        (500, b'{"errors": ["local node not active but active cluster node not found"]}'),
        (503, b"{}"),
        (400, b'{"errors": ["leadership lost while committing log"]}'),
        (400, b'{"errors": ["failed to persist policy: node is not the leader"]}'),
    ],
)
def test_an_administrator_is_told_that_no_node_is_active_not_that_the_catalog_is_wrong(status: int, body: bytes) -> None:
    with serve_canned_answers() as standby, AdminClient(standby.address, Secret("a-token")) as vault:
        standby.set_response(status, body)
        for ask in (vault.read, lambda path: vault.has_path(path, {})):
            with pytest.raises(VaultNotReady, match=r"not active.*wait until a node is active; then run the same command again"):
                ask("sys/control-group/request")


def test_an_answer_of_a_standby_that_cannot_forward_says_so() -> None:
    error = refusal(307, "GET database/creds/x", {})
    assert type(error) is VaultUnavailable
    assert str(error) == "GET database/creds/x: Vault answered 307 (a standby that cannot forward it to the active node)"
