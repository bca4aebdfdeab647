"""No secret and no bearer token is in a wrong place, and no job's spec in Temporal's files. The same scan finds planted values, which shows that it works."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from justenough.domain.jobs import bundle
from tests.attacks import secret_scan
from tests.attacks.intruder import Intruder
from tests.attacks.secret_scan import IDENTITY_TOKEN, VAULT_TOKEN, ScanResult, all_places
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Shop, Witness, access, spec
from worker.stack.stack_file import Stack

pytestmark = pytest.mark.servers

PROGRAM = Path(__file__).with_name("programs") / "tell.py"
CONTROL = f"control-{uuid.uuid4().hex}"
FALSE_TOKENS = {f"s.{uuid.uuid4().hex[:24]}".encode(), b"eyJhbGciOiJF.eyJpc3MiOiJ4." + uuid.uuid4().hex.encode()}
TOKEN = f"canary/{uuid.uuid4().hex}+ä='&\"?"
"""An API key with every character that an encoding changes."""
OWN = {
    "file vault-admin.token": "the embedded stack's own admin token, for `vault setup`",
    "file worker.approle.json": "how the worker logs in",
    "file console.approle.json": "how the console logs in",
    "file people.json": "the embedded people's passwords",
    "file stack.json": "it tells them to whoever runs the stack (docs/tutorial/first-job.md)",
}
"""Files that contain a secret of the embedded stack on purpose, all with mode 0600."""


@dataclass(frozen=True)
class LeakScan:
    """The secrets of the jobs, and the result of one scan of everything afterwards."""

    jobs: dict[str, dict[str, Any]]
    logs: dict[str, str]
    secrets: dict[str, str]
    scanned: ScanResult


@contextmanager
def set_api_key(shop: Shop, value: str) -> Iterator[None]:
    """Use this key for the helpdesk for a block."""
    with shop.admin() as vault:
        before = vault.get("kv/data/tenants/acme/helpdesk").raise_for_status().json()["data"]["data"]
        vault.post("kv/data/tenants/acme/helpdesk", json={"data": {"token": value}}).raise_for_status()
        try:
            yield
        finally:
            vault.post("kv/data/tenants/acme/helpdesk", json={"data": before}).raise_for_status()


def leak_spec(*names: str, first: str = "true", **more: Any) -> dict[str, Any]:
    """Return the part of a spec that runs the leaking program after another command."""
    script = f'{first}; exec python3 tell.py "$@"'
    run = {"command": ["bash", "-c", script, "sh", CONTROL, *names], "timeout": "2m"}
    return {"run": run, "labels": {"planted": CONTROL}, **more}


KEY = {"resource": "helpdesk-api", "action": "read", "ttl": "5m", "reason": "a test", "deliver": {"env": {"KEY": "token"}}}
IN_A_FILE = {"file": {"path": "db.json"}, "env": {"PGUSER": "username", "PGPASSWORD": "password"}}


@pytest.fixture(scope="module")
def leak_scan(whole: Stack, shop: Shop, intruder: Intruder, ops: Human, lead: Human, security: Human, auditor: Human) -> LeakScan:
    """Run jobs that leak all their secrets, each with another ending; plant controls where jobs cannot write; then scan everything once."""
    content = bundle.pack({"tell.py": (PROGRAM.read_bytes(), False)})
    sent = ops.api.post("bundles", content=content, headers={"Content-Type": "application/gzip"}).raise_for_status()
    digest = sent.json()["digest"]
    witness = Witness()
    secrets = {"api key": TOKEN}

    def launched(*items: dict[str, Any], **changes: Any) -> str:
        return ops.launch({**spec("", *items), **changes}, bundle=digest)

    with set_api_key(shop, TOKEN):
        ids = {
            "api key": launched(KEY, **leak_spec("KEY")),
            "undeliverable": launched({**KEY, "deliver": {"env": {"KEY": "no-such-field"}}}, **leak_spec("KEY")),
            "no program": launched(KEY, run={"command": ["/no/such/program"], "timeout": "1m"}),
        }
        for name, items, ending in (
            ("read", [access(deliver=IN_A_FILE)], "true"),
            ("approved", [access(action="write", deliver=IN_A_FILE)], "true"),
            ("locked", [access("payouts-db", "write", deliver=IN_A_FILE)], "true"),
            ("killed", [access()], "python3 tell.py x PGPASSWORD; sleep 300"),
        ):
            ids[name] = launched(*items, **leak_spec("PGPASSWORD", "PGUSER", first=f"{witness.hand_over}; {ending}"))
            if name in {"approved", "locked"}:
                who = lead if name == "approved" else security
                assert who.answer(ops.until(ids[name], "awaiting_approval")["requests"][0]).status_code in ACCEPTED_STATUSES
            login = witness.login()
            secrets[f"password of {name}"] = login.password
        wait_for_log(auditor, ids["killed"], "told all")
        assert ops.api.post(f"jobs/{ids['killed']}/kill").status_code == 202
        jobs = {name: ops.until(job) for name, job in ids.items()}
        waiting = ops.launch(spec("true", access("payouts-db", "write")))
        ops.until(waiting, "awaiting_approval")
    witness.close()
    plant_controls(whole, shop)
    wanted = {**secrets, **stack_secrets(whole, ops, lead, auditor), "control": CONTROL, "job id": ids["read"]}
    logs = {name: auditor.output(job) for name, job in ids.items()}
    # While one is locked still: what opens it is kept.
    assert intruder.read_store("SELECT count(*) FROM locks WHERE job = ?", waiting) == [(1,)]
    found = LeakScan(jobs, logs, secrets, secret_scan.scan(all_places(whole, intruder, auditor, ids.values()), wanted))
    assert ops.api.post(f"jobs/{waiting}/cancel").status_code == 202
    return found


def wait_for_log(reader: Human, job: str, text: str) -> None:
    """Wait until a job has printed something. The API paces the loop, and the suite's timeout ends it."""
    while text not in reader.output(job):
        assert reader.job(job)["state"] == "running"


def plant_controls(stack: Stack, shop: Shop) -> None:
    """Write the control to places where no job can write: the servers' logs, the audit log, a metrics file, a bundle's folder."""
    with shop.admin() as vault:
        vault.get(f"kv/data/{CONTROL}")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(make_conninfo(shop.dsn, user=CONTROL, password="x"))
    httpx.get(f"{stack.console}/{CONTROL}", trust_env=False)
    for child in ("worker", "console", "supervisor", "temporal", "vault"):
        with (stack.home / "logs" / f"{child}.log").open("a") as log:
            log.write(f"planted {CONTROL}\n")
    with (stack.home / "logs" / "worker.log").open("ab") as log:
        log.writelines(b"planted %b\n" % token for token in FALSE_TOKENS)


def stack_secrets(stack: Stack, *people: Human) -> dict[str, str]:
    """Return the secrets with which someone could act as a person or a server."""
    found = {f"password of {name}": user.password for name, user in stack.users.items()}
    found |= {f"vault token of {person.name}": person.vault.headers["X-Vault-Token"] for person in people}
    found |= {"admin token": stack.admin_token_file.read_text().strip()}
    for name in ("worker", "console"):
        found[f"login of {name}"] = read_secret(stack.home / f"{name}.approle.json")
    return found


def read_secret(file: Path) -> str:
    """Return an AppRole's secret id."""
    return str(json.loads(file.read_text())["secret_id"])


def test_the_scan_finds_only_the_control(leak_scan: LeakScan) -> None:
    stray = {(name, place) for name, place in leak_scan.scanned.found if name not in {"control", "job id"} and place not in OWN}
    assert stray == set()
    assert leak_scan.scanned.names >= {"control"}
    assert leak_scan.scanned.names.isdisjoint(leak_scan.secrets)


def test_the_scan_finds_the_control_in_every_kind_of_place(leak_scan: LeakScan) -> None:
    found = leak_scan.scanned.places_of("control")
    job = leak_scan.jobs["read"]["id"]
    planted = {
        f"history of Job {job}",
        *("table ledger", "table jobs", "table orders", "table logs"),
        *("file vault/audit.log", "file logs/postgres.log", "file logs/worker.log", "file logs/console.log", "file logs/temporal.log"),
        *("file logs/supervisor.log", "file logs/vault.log"),
        *("api jobs", "api logs", "api timeline", "api ledger"),
    }
    assert planted - found == set()
    assert "table locks" in leak_scan.scanned.places
    assert any(place.startswith("file justenough.db") for place in found)


def test_temporals_files_have_ids_and_nothing_of_what_the_spec_says(leak_scan: LeakScan) -> None:
    assert {place for place in leak_scan.scanned.places_of("job id") if place.startswith("file temporal/")}
    assert not {place for place in leak_scan.scanned.places_of("control") if place.startswith("file temporal/")}


def test_the_scan_finds_only_the_planted_bearer_tokens(leak_scan: LeakScan, ops: Human) -> None:
    assert VAULT_TOKEN.fullmatch(ops.vault.headers["X-Vault-Token"].encode())
    assert IDENTITY_TOKEN.fullmatch(ops.vault.get("identity/oidc/token/je-console").json()["data"]["token"].encode())
    assert {(token, place) for token, place in leak_scan.scanned.tokens if place not in OWN} == {
        (token, "file logs/worker.log") for token in FALSE_TOKENS
    }


@pytest.mark.parametrize("before", ["", "u", "us", "use"])
def test_the_scan_recognizes_base64_at_any_offset(before: str) -> None:
    for after in ("", "x", "xy"):
        text = (before + TOKEN + after).encode()
        assert any(form in base64.b64encode(text) for form in secret_scan.forms_of(TOKEN))
        assert any(form in base64.urlsafe_b64encode(text) for form in secret_scan.forms_of(TOKEN))


def test_jobs_logs_have_marks_in_place_of_the_secrets(leak_scan: LeakScan) -> None:
    for name in ("api key", "read", "approved"):
        assert leak_scan.logs[name].count("[redacted]") >= 10, leak_scan.logs[name][-500:]
        assert "told all" in leak_scan.logs[name]
        assert f"control {CONTROL}" in leak_scan.logs[name]
    assert (leak_scan.jobs["read"]["state"], leak_scan.jobs["read"]["exit_code"]) == ("failed", 3)
    assert leak_scan.jobs["killed"]["state"] == "killed"


def test_failures_name_fields_and_never_values(leak_scan: LeakScan) -> None:
    assert "no field no-such-field" in leak_scan.jobs["undeliverable"]["reason"]
    assert leak_scan.jobs["no program"]["state"] == "failed"


def test_files_with_intended_secrets_are_private(leak_scan: LeakScan, whole: Stack) -> None:
    del leak_scan
    assert {oct((whole.home / place.removeprefix("file ")).stat().st_mode & 0o777) for place in OWN} == {"0o600"}
