"""The kubeconfig of a job: private to the job's user, named by KUBECONFIG, in memory, and deleted with the job."""

from __future__ import annotations

import json
import os
import socket

import pytest
import yaml

from tests.support.people import Human
from tests.support.shop import spec

pytestmark = pytest.mark.servers
LOOK = """
import json, os, socket, stat, sys
told = {}
for where in os.environ["KUBECONFIG"].split(":"):
    found = os.stat(where)
    kind = next(line.split()[2] for line in open("/proc/mounts") if line.split()[1] == os.path.dirname(where))
    told[where] = {"mode": oct(stat.S_IMODE(found.st_mode)), "own": found.st_uid == os.getuid(), "kind": kind, "text": open(where).read()}
print(told)
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as test:
    test.sendall(json.dumps(told).encode())
"""


def helpdesk(**options: str) -> dict[str, object]:
    """Return an access item whose credential has a token and whose catalog entry has an address."""
    deliver = {"kubeconfig": {"server": "url", **options}}
    return {"resource": "helpdesk-api", "action": "read", "ttl": "5m", "reason": "a test needs it", "deliver": deliver}


def test_only_the_job_can_read_its_kubeconfigs(ops: Human) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(180)
        run = {"command": ["python3", "-c", LOOK, str(server.getsockname()[1])]}
        job = ops.launch(spec("", helpdesk(path="one"), helpdesk(path="two.yaml"), run=run))
        connection, _ = server.accept()
        with connection, connection.makefile() as told:
            seen = json.load(told)
    assert list(seen) == ["/run/justenough/one", "/run/justenough/two.yaml"]
    assert [(file["mode"], file["own"], file["kind"]) for file in seen.values()] == [("0o600", True, "tmpfs")] * 2
    configs = [yaml.safe_load(file["text"]) for file in seen.values()]
    assert [config["current-context"] for config in configs] == ["helpdesk-api-read"] * 2
    assert [config["clusters"][0]["cluster"] for config in configs] == [{"server": "https://helpdesk.shop.example"}] * 2
    tokens = [config["users"][0]["user"]["token"] for config in configs]
    assert [len(token) for token in tokens] == [44, 44]
    assert ops.until(job)["state"] == "succeeded"
    logs = ops.output(job)
    assert ("helpdesk.shop.example" in logs, any(token in logs for token in tokens)) == (True, False)
    assert not os.access("/run/justenough/one", os.F_OK)


def test_a_field_that_the_credential_lacks_starts_no_job_and_is_reported_by_its_path(ops: Human) -> None:
    seen = ops.until(ops.launch(spec("true", helpdesk(path="one", token="key"))))
    assert seen["state"] == "failed"
    assert "helpdesk-api:read has no field key (deliver.kubeconfig.token); it has token, url" in seen["reason"]
    assert {item["state"] for item in seen["credentials"]} <= {"residual"}
