"""doctor: each missing piece is reported with its remedy; what exists is tested, not assumed."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from activities.process import process_tree
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import read_json
from justenough.adapters.store import Store
from justenough.adapters.store.outbox_queries import FailedDelivery, Settlement
from justenough.domain.catalog.loader import read_catalog
from justenough.domain.core.secret import Secret
from justenough.domain.readmodel.views import TargetCheck
from tests.activities.tcp_door import Door
from tests.adapters.store.event_samples import issuance, job_end, job_id, later, replace_data, revocation_start, submission
from tests.adapters.store.event_samples import overdue_revocation as late
from tests.support.canned_server import serve_canned_answers
from tests.support.child_process import run_child
from worker.provisioning.admin_client import AppliedWrite, WriteOutcome
from worker.stack import doctor
from worker.stack.binaries import Programs
from worker.stack.doctor import Examination, examine, machine
from worker.stack.doctor import store as doctor_store
from worker.stack.doctor import vault as doctor_vault
from worker.stack.doctor.home import mode_findings, settings_findings, stack_findings
from worker.stack.doctor.servers import login_findings, poller_findings, temporal_findings
from worker.stack.doctor.store import overdue_findings, read_failing_targets
from worker.stack.doctor.targets import has_locked_actions, target_findings, trial_findings
from worker.stack.doctor.vault import drift_findings, embedded_vault_findings, lock_finding, vault_findings
from worker.stack.finding import DoctorFinding
from worker.stack.paths import StackPaths
from worker.stack.pidfile import SUPERVISOR, identity_of, write_pidfile
from worker.stack.readyz import RUNBOOK
from worker.stack.stack_file import Stack
from worker.stack.status import StackStatus
from worker.stack.supervisor import make_home

SHOP = Path(__file__).parents[3] / "examples" / "shop"
NOTHING = Programs(beside=Path("/nonexistent"), path="/nonexistent", wheels=False)


def by_name(findings: tuple[DoctorFinding, ...]) -> dict[str, DoctorFinding]:
    return {finding.what: finding for finding in findings}


def test_a_bare_machine_gets_every_missing_piece_at_once(tmp_path: Path) -> None:
    findings = by_name(examine(Examination(Settings(home=tmp_path), programs=NOTHING)))
    missing = {name for name, finding in findings.items() if finding.level == "missing"}
    assert {"temporal", "openbao", "postgresql", "bubblewrap"} <= missing
    assert ("setpriv" in missing) is (os.geteuid() == 0)
    assert all(findings[name].remedy for name in missing)
    assert (findings["python"].level, findings["python"].found) == ("ok", ".".join(map(str, sys.version_info[:3])))
    assert findings["bubblewrap"].remedy.startswith("apt install bubblewrap")
    assert findings["stack"].remedy == "justenough up --detach"


def test_a_damaged_stack_file_is_a_finding_and_stops_no_other_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    with running_process(tmp_path) as (places, _):
        places.stack.write_text("{}")
        findings = by_name(examine(Examination(Settings(home=tmp_path))))
    assert (findings["stack"].level, findings["stack"].remedy) == ("missing", "justenough down, then justenough up --detach")
    assert f"{places.stack} cannot be parsed" in findings["stack"].found
    assert "disk" in findings


def test_a_child_that_does_not_answer_is_reported_with_its_log(tmp_path: Path) -> None:
    with running_process(tmp_path) as (places, pid):
        common: dict[str, Any] = {"config": SHOP, "database_url": "", "admin_token_file": places.admin_token, "users": {}}
        Stack(home=tmp_path, supervisor=pid, pids={"worker": pid, "model": 2**22 + 1}, **common).write(places)
        model, worker = stack_findings(places)
    assert (worker.what, worker.level, worker.found) == ("worker", "missing", f"unhealthy, pid {pid}")
    assert worker.remedy.startswith(f"See {places.log('worker')}. The supervisor restarts it; if it does not: justenough down, then")
    assert (model.what, model.level, model.found.partition(",")[0]) == ("model", "missing", "down")


@contextmanager
def running_process(home: Path) -> Iterator[tuple[StackPaths, int]]:
    """Run a process that is taken for the supervisor of a home."""
    places = StackPaths(home)
    make_home(places)
    with run_child(("cat",), stdin=subprocess.PIPE) as process:
        identity = identity_of(process.pid)
        assert identity is not None
        write_pidfile(places.run, SUPERVISOR, identity)
        yield places, process.pid


def test_a_process_that_does_not_know_its_vault_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    found = [finding for finding in settings_findings(Settings()) if finding.level == "missing"]
    assert [(one.what, one.found, one.remedy) for one in found] == [
        ("settings", "VAULT_ADDR is not set", "Run doctor with the variables of the worker or console.")
    ]


def test_on_servers_of_its_own_no_installation_lacks_a_stack(tmp_path: Path) -> None:
    assert "stack" not in by_name(examine(Examination(Settings(home=tmp_path, vault_addr="http://127.0.0.1:9"))))


def test_what_a_running_stack_uses_is_checked_and_no_stack_counts_for_an_installation(tmp_path: Path) -> None:
    places, me = StackPaths(tmp_path), identity_of(os.getpid())
    assert me is not None
    places.run.mkdir()
    write_pidfile(places.run, SUPERVISOR, me)
    stack = Stack(
        home=tmp_path,
        config=tmp_path / "shop",
        supervisor=me.pid,
        vault="http://127.0.0.1:8",
        database_url="sqlite:///stack.db",
        admin_token_file=places.admin_token,
        users={},
        pids={},
    )
    stack.write(places)
    settings = Settings(home=tmp_path, vault_addr="http://127.0.0.1:9", vault_namespace="corp", vault_cacert=tmp_path / "corp.pem")
    found = Examination(settings).in_force
    assert (found.config, found.vault_addr, found.database_url) == (stack.config, stack.vault, stack.database_url)
    assert (found.vault_namespace, found.vault_cacert) == (None, None), "these are for the other Vault"
    assert Examination(settings, is_production=True).in_force == settings


def test_this_machine_has_what_the_stack_needs(tmp_path: Path) -> None:
    findings = by_name(examine(Examination(Settings(home=tmp_path))))
    assert {name: findings[name].level for name in ("python", "temporal", "openbao", "postgresql", "disk")} == dict.fromkeys(
        ("python", "temporal", "openbao", "postgresql", "disk"), "ok"
    )


def install_program(folder: Path, name: str, script: str) -> Programs:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (folder / name).chmod(0o755)
    return Programs(path=str(folder))


def test_a_bubblewrap_that_cannot_create_namespaces_counts_as_missing(tmp_path: Path) -> None:
    programs = install_program(tmp_path / "bin", "bwrap", "echo 'bwrap: No permissions to create new namespace' >&2; exit 1")
    found = by_name(tuple(machine.sandbox_findings(programs, root=False)))["bubblewrap"]
    assert found.level == "missing"
    assert "No permissions to create new namespace" in found.found
    assert "JUSTENOUGH_SANDBOX=off" in found.remedy
    (tmp_path / "bin" / "bwrap").write_bytes(b"no program")
    found = by_name(tuple(machine.sandbox_findings(programs, root=False)))["bubblewrap"]
    assert (found.level, found.found) == (
        "missing",
        f"{tmp_path}/bin/bwrap does not run: [Errno 8] Exec format error: '{tmp_path}/bin/bwrap'",
    )


def test_running_without_root_is_reported_with_its_consequence(tmp_path: Path) -> None:
    found = by_name(tuple(machine.sandbox_findings(Programs(), root=False)))
    assert found["user"].level == "warning"
    assert "isolated by namespaces only" in found["user"].found
    assert "setpriv" not in found


def test_the_limits_of_jobs_are_probed_and_reported(tmp_path: Path) -> None:
    found = by_name(tuple(machine.sandbox_findings(Programs(), root=os.geteuid() == 0)))["limits"]
    assert (found.level, found.found) == (
        "ok",
        "the kernel limits each process (rlimits), and the worker limits the sum of a job's processes; no cgroups",
    )
    programs = install_program(tmp_path / "bin", "prlimit", "echo 'prlimit: failed to set the NPROC resource limit' >&2; exit 1")
    found = by_name(tuple(machine.sandbox_findings(programs, root=False)))["limits"]
    assert found.level == "missing"
    assert "failed to set the NPROC" in found.found


def test_a_worker_that_cannot_read_its_jobs_memory_gets_the_missing_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = DoctorFinding("limits", "ok", "prlimit works")
    monkeypatch.setattr(machine, "CAP_SYS_PTRACE", 63)
    found = machine.limits_finding(tried, root=True)
    assert (found.level, found.remedy) == ("warning", "Give the worker the capability SYS_PTRACE.")
    assert machine.limits_finding(tried, root=False).level == "ok"
    monkeypatch.setattr(process_tree, "PROC", Path("/nonexistent"))
    assert "CONFIG_PROC_CHILDREN" in machine.limits_finding(tried, root=False).remedy


def test_whether_jobs_can_be_kept_from_temporal_and_vault_is_probed_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        found = machine.firewall_finding(Settings())
        assert found.level == "ok"
        assert found.found == "a worker can keep the users 700000 to 702047 from Vault, and to 704095 from Temporal"
    monkeypatch.setattr("os.geteuid", lambda: 1)
    found = machine.firewall_finding(Settings())
    assert found.level == "warning"
    assert (
        found.found
        == "jobs with `network: host` can reach Temporal and Vault: jobs run as the worker's own user, which must reach Temporal and Vault"
    )
    assert found.remedy.startswith("Run the worker as root. Or give jobs no network,")


def test_a_missing_browser_is_only_a_warning() -> None:
    (found,) = machine.browser_findings(NOTHING)
    assert (found.level, found.remedy) == ("warning", "apt install chromium")


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(machine, "MIN_FREE_BYTES", usage.free + (1 << 40))
    (found,) = machine.disk_findings(StackPaths(tmp_path / "not" / "yet" / "there"))
    assert found.level == "missing"
    assert found.remedy.startswith("Free at least 1 GiB")


def test_a_file_that_others_can_read_is_reported_with_the_command_that_fixes_it(tmp_path: Path) -> None:
    (tmp_path / "vault-admin.token").write_text("x", encoding="utf-8")
    (tmp_path / "vault-admin.token").chmod(0o640)
    (found,) = mode_findings(StackPaths(tmp_path))
    assert (found.level, found.remedy) == ("missing", f"chmod 600 {tmp_path / 'vault-admin.token'}")


def test_a_vault_that_does_not_answer_is_reported() -> None:
    (found,) = vault_findings("http://127.0.0.1:9")
    assert found.level == "missing"
    assert found.found.startswith("http://127.0.0.1:9 did not answer")


@pytest.mark.parametrize("page", [b"<html>Back in a moment</html>", b'{"message": "Back in a moment"}', b'{"errors": ["rate limit"]}'])
@pytest.mark.parametrize("status", [200, 404, 429, 503])
def test_a_page_of_a_proxy_is_not_reported_as_a_vault(status: int, page: bytes) -> None:
    with serve_canned_answers() as proxy:
        proxy.set_response(status, page, media="text/html")
        (found,) = vault_findings(proxy.address, token=Secret("s.token"), locks=True, pages_mount="pages")
    assert (found.level, found.found) == ("missing", f"{proxy.address} does not answer as Vault does (status {status})")


@pytest.mark.parametrize("status, body", [(307, b""), (500, b'{"errors": ["local node not active but active cluster node not found"]}')])
def test_a_vault_of_which_no_node_is_active_is_reported_rather_than_the_token(status: int, body: bytes) -> None:
    with serve_canned_answers() as standby:
        standby.set_response(status, body)
        standby.routes["sys/health"] = 200, {"initialized": True, "sealed": False, "standby": True, "cluster_id": "c", "version": "2.7.0"}
        seal, found = vault_findings(standby.address, token=Secret("s.token"), locks=True, pages_mount="pages")
    assert (seal.what, seal.level) == ("vault seal", "ok")
    assert (found.level, found.found) == ("missing", f"{standby.address} is a standby that reaches no active node")


def test_an_embedded_vault_without_audit_log_or_request_bound_is_reported(tmp_path: Path) -> None:
    audit, bound = embedded_vault_findings(tmp_path / "openbao.hcl", tmp_path / "audit.log")
    assert (audit.what, audit.level, audit.found) == ("vault audit", "missing", f"nothing is written to {tmp_path}/audit.log")
    assert (bound.what, bound.level, bound.found) == ("vault longest request", "missing", f"not bounded in {tmp_path}/openbao.hcl")


def test_a_vault_without_audit_device_or_request_bound_is_reported() -> None:
    with serve_canned_answers() as vault:
        vault.routes["sys/health"] = 200, {"initialized": True, "sealed": False, "standby": False, "cluster_id": "c", "version": "2.7.0"}
        vault.routes["sys/config/state/sanitized"] = 200, {"data": {"default_max_request_duration": 0}}
        vault.routes["sys/audit"] = 200, {"data": {}}
        _, audit, bound = vault_findings(vault.address, token=Secret("s.token"))
    assert (audit.level, audit.found) == ("missing", "no audit device")
    assert audit.remedy == "Declare an audit device; without one there is no record of the requests to Vault."
    assert (bound.level, bound.found) == ("warning", "90 s")
    assert bound.remedy.startswith('Put default_max_request_duration = "10s" into its configuration')


def test_what_differs_in_vault_from_what_this_version_needs_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = [
        AppliedWrite("sys/policies/acl/je-worker", WriteOutcome.CHANGED),
        AppliedWrite("sys/mounts/kv", WriteOutcome.KEPT, "it is tuned differently"),
        AppliedWrite("transit/keys/je-jobs", WriteOutcome.UNCHANGED),
    ]
    monkeypatch.setattr(doctor_vault, "plan_vault", lambda _: planned)
    kept, changed = drift_findings(Settings(), Secret("s.token"))
    assert (kept.what, kept.level, kept.found) == ("vault sys/mounts/kv", "warning", "it is tuned differently")
    assert (changed.level, changed.found) == ("missing", "1 of 3 differ from what this version needs, such as sys/policies/acl/je-worker")
    assert changed.remedy == "Run `justenough vault plan`, then `justenough vault apply`."


def store_with(folder: Path, *overdue: str) -> str:
    """Create a store in which these jobs' revocations are overdue and another job's is not; return its URL."""
    url = f"sqlite:///{folder / 'justenough.db'}"
    with closing(Store(url)) as store:
        store.migrate()
        store.ledger.append([submission(job_id(9)), issuance(job_id(9)), job_end(job=job_id(9))])
        for job in overdue:
            store.ledger.append([submission(job), issuance(job), revocation_start(job, at=later(5)), late(job, at=later(6))])
    return url


def test_a_subscription_with_dead_letters_is_reported_with_its_remedy(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with closing(Store(url)) as store:
        store.migrate()
        store.outbox.acquire_lease("us", now=later(0), until=later(15))
        store.outbox.keep_subscriptions({"siem": "webhook", "leads": "notify"}, holder="us", now=later(0))
        (entry,) = store.ledger.append([submission(job_id(1))])
        dead = FailedDelivery(entry=entry, attempts=8, next_at=None, why="410 Gone")
        store.outbox.settle(Settlement(subscription="siem", at=later(1), position=1, failed=(dead,)), holder="us")
    store_found, schema, found = overdue_findings(Settings(database_url=url))
    assert (schema.what, schema.level) == ("schema", "ok")
    assert (store_found.what, store_found.level, store_found.found) == ("store", "ok", str(tmp_path / "store.db"))
    assert (found.what, found.level, found.found) == ("dead letters", "warning", "1 event(s) were not delivered to siem; last: 410 Gone")
    assert "justenough webhook deliveries siem --dead" in found.remedy


def test_a_target_that_failed_the_last_sweeps_check_is_named_with_its_reason_and_its_time(tmp_path: Path) -> None:
    url, names = f"sqlite:///{tmp_path / 'store.db'}", ("db:5432/shop", "db:5432/lock", "db:5432/well")
    holds = "session 12 of backup (application nightly) holds locks on what is left of the job, in a transaction since 2026-01-31T09:30:00Z"
    failures = (
        "users are alive: v-x (job j-x); session 4711 of v-x has been running a statement for 9 s",
        f"users are alive: v-y; {holds}",
        None,
    )
    with closing(Store(url)) as store:
        store.migrate()
        checks = zip(names, failures, strict=True)
        store.targets.record([TargetCheck(name=name, failure=why, since=later(5), checked_at=later(5)) for name, why in checks])
    settings = Settings(database_url=url)
    locked, alive = tuple(overdue_findings(settings))[2:]
    assert (alive.what, alive.level) == ("target db:5432/shop, in the last sweep", "missing")
    assert alive.found.startswith(f"{failures[0]}, since {later(5):%Y-%m-%dT%H:%M:%SZ} (last checked ")
    assert "pg_terminate_backend" not in alive.remedy, "it does not end that session"
    assert "pid = 12 AND" in locked.remedy
    status = StackStatus(StackPaths(tmp_path), supervisor=None, children=(), failing_targets=read_failing_targets(settings))
    assert any("session 4711 of v-x" in alarm for alarm in status.alarms)


def test_overdue_jobs_of_a_readable_store_are_reported_with_time_and_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = store_with(tmp_path, job_id(1), job_id(2))
    _, _, *found = overdue_findings(Settings(database_url=url))
    assert [finding.level for finding in found] == ["missing", "missing"]
    assert found[0].found == f"{job_id(2)} (revoking) since 2026-01-31T09:30:05Z: leases: the target does not answer"
    assert found[0].remedy == f"justenough job show {job_id(2)}; docs/how-to/runbook.md#overdue"
    monkeypatch.setattr(doctor_store, "MAX_JOBS_SHOWN", 1)
    _, _, first, more = overdue_findings(Settings(database_url=url))
    assert (first, more.found, more.remedy) == (found[0], "more than 1 jobs", "justenough job list --revocation overdue")


def test_the_statement_that_ends_a_session_is_the_last_of_its_remedy(tmp_path: Path) -> None:
    url = store_with(tmp_path, job_id(1))
    failures = ["lock in db:5432/shop: session 4711 of backup holds locks, in a transaction since 2026-01-31T09:20:00Z"]
    with closing(Store(url)) as store:
        store.ledger.append([replace_data(late(job_id(1), at=later(7), attempt=2), failures=failures)])
    _, _, found = overdue_findings(Settings(database_url=url))
    assert found.remedy.startswith(
        "docs/how-to/runbook.md#overdue: In db:5432/shop, session 4711 of backup holds the lock. If nobody needs it, connect"
    )
    assert found.remedy.endswith("+ interval '1s';")


def test_a_missing_store_is_not_created_and_an_unreadable_store_is_reported(tmp_path: Path) -> None:
    assert list(overdue_findings(Settings(database_url=f"sqlite:///{tmp_path / 'none.db'}"))) == []
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "broken.db").write_text("no database at all, and long enough to be looked at " * 20)
    for url in (f"sqlite:///{tmp_path / 'broken.db'}", "postgresql://nobody:nothing@127.0.0.1:1/none"):
        (found,) = overdue_findings(Settings(database_url=url))
        assert (found.what, found.level) == ("store", "missing")
        assert "nothing" not in found.found


@pytest.mark.servers
def test_a_target_that_refuses_connections_or_hangs_is_reported(servers: Stack) -> None:
    door = Door(int(read_json(StackPaths(servers.home).ports)["postgres"]))

    def look() -> DoctorFinding:
        (found,) = target_findings(SHOP, {"SHOP_HOST": "127.0.0.1", "SHOP_PORT": str(door.port), "MODEL_URL": "http://127.0.0.1:65535/v1"})
        return found

    assert (look().what, look().level) == (f"target 127.0.0.1:{door.port}/shop", "ok")
    door.hang()
    assert (look().level, look().found) == ("missing", "did not answer within 2 s")
    door.open()
    door.close()
    assert look().level == "missing"
    assert "docs/how-to/runbook.md#overdue" in look().remedy


def test_a_target_whose_address_is_invalid_is_reported() -> None:
    (found,) = target_findings(SHOP, {"SHOP_HOST": "db.example", "SHOP_PORT": "many", "MODEL_URL": "http://127.0.0.1:65535/v1"})
    assert (found.level, found.remedy) == ("missing", "Correct it in the catalog.")
    assert found.found.startswith("a target's address is invalid: ")


def test_a_target_that_no_scope_can_use_is_not_tried(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, config=SHOP)
    settings.worker_approle_file.write_text("{}")
    without_scopes = read_catalog((SHOP / "catalog.yaml").read_bytes()).model_copy(update={"scopes": ()})
    (found,) = trial_findings(settings, without_scopes)
    assert (found.what, found.level, found.found) == ("access orders-db:read", "warning", "not tried: no scope has its keys")


def test_addresses_of_targets_are_not_guessed(tmp_path: Path) -> None:
    assert list(target_findings(SHOP, {})) == []
    assert list(target_findings(tmp_path, {})) == []


@pytest.mark.parametrize("is_production", [False, True])
def test_targets_that_cannot_be_checked_for_want_of_settings_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_production: bool
) -> None:
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:9")
    found = by_name(examine(Examination(Settings(home=tmp_path, config=SHOP), is_production=is_production)))["targets"]
    # Each setting is named once, however many places of the catalog use it.
    told = "were not checked: setting SHOP_HOST is missing: set the environment variable SHOP_HOST; setting SHOP_PORT is missing: "
    assert (found.level, told in found.found, found.found.count("SHOP_HOST")) == ("warning", True, 2)
    assert "the worker's environment variables" in found.remedy


def test_every_function_that_yields_findings_is_a_check_of_doctor_or_part_of_one() -> None:
    sources = [path.read_text() for path in Path(doctor.__file__).parent.glob("*.py")]
    made = {name for text in sources for name in re.findall(r"^def ([a-z]\w*_findings?)\(", text, re.MULTILINE)}
    assert len(made) > 20
    assert [name for name in sorted(made) if not any(re.search(rf"(?<!def )\b{name}\(", text) for text in sources)] == []


def test_every_section_of_the_runbook_that_a_command_names_exists() -> None:
    root = Path(__file__).parents[3]
    parts = {
        re.sub(r"[^a-z -]", "", line.lstrip("# ").lower()).strip().replace(" ", "-")
        for line in (root / RUNBOOK).read_text().splitlines()
        if line.startswith("#")
    }
    sources = [path.read_text() for folder in ("console", "worker") for path in (root / folder).rglob("*.py")]
    named = {part for text in sources for part in re.findall(r"RUNBOOK\}#([a-z-]+)", text)}
    assert named
    assert named <= parts


@pytest.mark.servers
def test_a_vaults_configuration_is_read_with_an_administrators_token(servers: Stack) -> None:
    token = Secret(servers.admin_token_file.read_text(encoding="utf-8"))
    findings = by_name(tuple(vault_findings(servers.vault or "", token=token)))
    assert {name: (finding.level, finding.found) for name, finding in findings.items() if name != "vault seal"} == {
        "vault audit": ("ok", "1 audit device(s)"),
        "vault longest request": ("ok", "10 s"),
    }
    assert findings["vault seal"].level == "ok"


@pytest.mark.servers
def test_a_vaults_configuration_is_read_in_its_root_namespace(servers: Stack) -> None:
    root = servers.admin_token_file.read_text(encoding="utf-8").strip()
    made = httpx.post(f"{servers.vault}/v1/sys/namespaces/doctored", headers={"X-Vault-Token": root}, timeout=60, trust_env=False)
    made.raise_for_status()
    findings = by_name(tuple(vault_findings(servers.vault or "", token=Secret(root), namespace="doctored")))
    assert {"vault audit": "ok", "vault longest request": "ok"}.items() <= {name: found.level for name, found in findings.items()}.items()


@pytest.mark.servers
@pytest.mark.parametrize("token", [None, Secret("s.wrong")])
def test_a_vaults_configuration_is_not_guessed_without_a_valid_token(servers: Stack, token: Secret | None) -> None:
    findings = by_name(tuple(vault_findings(servers.vault or "", token=token)))
    assert findings["vault configuration"].level == "warning"
    assert "VAULT_TOKEN" in findings["vault configuration"].remedy


@pytest.mark.servers
def test_the_temporal_server_in_the_settings_is_checked_for_what_workflows_need(servers: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", os.devnull)
    address = str(servers.temporal)
    (sound,) = temporal_findings(Settings(temporal_address=address))
    assert (sound.what, sound.level, sound.found) == ("temporal server", "ok", f"{address}, namespace default")
    (elsewhere,) = temporal_findings(Settings(temporal_address=address, temporal_namespace="nowhere"))
    assert (elsewhere.level, "temporal operator namespace create --namespace nowhere" in elsewhere.found) == ("missing", True)
    (away,) = temporal_findings(Settings(temporal_address="127.0.0.1:1"))
    assert (away.level, "does not answer (Connection refused)" in away.found) == ("missing", True)
    monkeypatch.setattr("justenough.adapters.temporal.SEARCH_ATTRIBUTES", ("JustEnoughState", "JustEnoughNew"))
    (bare,) = temporal_findings(Settings(temporal_address=address))
    assert (bare.level, bare.found.endswith("lacks the search attributes JustEnoughNew")) == ("warning", True)
    # The settings name no console; the embedded stack's console is checked elsewhere.
    assert list(temporal_findings(Settings())) == []


@pytest.mark.servers
def test_a_login_at_vault_that_is_not_accepted_is_reported(servers: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    assert list(login_findings(Settings(home=tmp_path))) == []
    settings = Settings(home=tmp_path, vault_addr=str(servers.vault))
    (absent,) = login_findings(settings)
    assert (absent.level, "neither a worker nor a console can log in" in absent.found) == ("warning", True)
    settings.worker_approle_file.write_text('{"role_id": "hush", "secret_id": "hush-hush"}')
    settings.console_approle_file.write_text("no JSON")
    wrong, unreadable = login_findings(settings)
    assert (wrong.what, wrong.level, unreadable.what, unreadable.level) == ("worker login", "missing", "console login", "missing")
    assert "must be JSON with role_id and secret_id" in unreadable.found
    assert "hush" not in wrong.found
    away, unreadable = login_findings(settings.model_copy(update={"vault_addr": "http://127.0.0.1:9"}))
    assert "worker.approle.json could not be tried: Vault at http://127.0.0.1:9 did not answer" in away.found
    assert away.remedy == "The file may be fine: make Vault answer first."
    assert "must be JSON" in unreadable.found


@pytest.mark.servers
def test_each_task_queue_that_no_worker_polls_is_reported(servers: Stack, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, temporal_address=str(servers.temporal), installation="unpolled")

    async def poll(queue: str) -> None:
        client = await Client.connect(str(servers.temporal))
        request = PollActivityTaskQueueRequest(namespace=client.namespace, task_queue=TaskQueue(name=queue), identity="a test")
        # Temporal refuses a poll that would wait for less than three seconds.
        with suppress(RPCError):
            await client.workflow_service.poll_activity_task_queue(request, timeout=timedelta(seconds=5))

    jobs, endings = settings.task_queue, f"{settings.task_queue}-endings"
    assert [(found.level, found.found) for found in poller_findings(settings)] == [
        ("missing", f"no worker polls {queue}: jobs wait") for queue in (jobs, endings)
    ]
    asyncio.run(poll(endings))
    assert [(found.level, found.found) for found in poller_findings(settings)] == [
        ("missing", f"no worker polls {jobs}: jobs wait"),
        ("ok", f"{endings} is polled"),
    ]


@pytest.mark.servers
def test_a_running_stack_is_healthy(servers: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    findings = by_name(examine(Examination(Settings(home=servers.home))))
    names = ("temporal", "vault", "postgres", "file modes", "vault seal", "vault audit", "vault longest request", "postgresql's user")
    assert {name: findings[name].level for name in names} == dict.fromkeys(names, "ok")
    tier = findings["tier 1 (owner)"]
    assert (tier.level, "nobody can approve; Vault has no group support-leads" in tier.found) == ("missing", True), (
        "nothing was provisioned"
    )


@pytest.mark.servers
def test_a_running_stack_is_checked_although_its_admin_token_is_gone(servers: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    token = StackPaths(servers.home).admin_token
    kept = token.rename(token.with_suffix(".kept"))
    try:
        findings = by_name(examine(Examination(Settings(home=servers.home))))
    finally:
        kept.rename(token)
    assert (findings["vault"].level, findings["people"].level) == ("ok", "warning")
    assert str(token) in findings["people"].found


@pytest.mark.parametrize(
    "version, level",
    [
        ("2.7.2", "ok"),
        ("2.10.0", "ok"),
        ("3.0.0", "ok"),
        ("1.19.0+ent", "ok"),
        ("2.6.0", "missing"),
        ("1.19.0", "missing"),
        ("", "missing"),
    ],
)
def test_a_vault_without_control_groups_is_reported_if_the_catalog_locks_actions(version: str, level: str) -> None:
    found = lock_finding(version)
    assert (found.level, "OpenBao 2.7" in found.remedy) == (level, level == "missing")


def test_control_groups_are_checked_only_for_a_catalog_with_locks(servers: Stack, tmp_path: Path) -> None:
    assert (has_locked_actions(SHOP), has_locked_actions(tmp_path)) == (True, False)
    assert by_name(tuple(vault_findings(servers.vault or "", locks=True)))["vault control groups"].level == "ok"
    assert "vault control groups" not in by_name(tuple(vault_findings(servers.vault or "")))


@pytest.mark.servers
def test_a_login_for_the_pages_is_checked_without_a_token(servers: Stack) -> None:
    admin = {"X-Vault-Token": servers.admin_token_file.read_text(encoding="utf-8").strip()}
    made = httpx.post(f"{servers.vault}/v1/sys/auth/browsers", json={"type": "userpass"}, headers=admin, trust_env=False)
    assert made.status_code == 204, made.text
    there, missing = (
        by_name(tuple(vault_findings(servers.vault or "", pages_mount=mount)))["pages login"] for mount in ("browsers", "nowhere")
    )
    assert (there.level, there.found) == ("ok", "at browsers/")
    assert (missing.level, missing.found) == ("warning", "nobody can log in to the pages: Vault has no login at nowhere/")
    assert "JUSTENOUGH_PAGES_MOUNT" in missing.remedy
