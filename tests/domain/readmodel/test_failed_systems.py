"""Overdue revocations are grouped by what keeps them from being verified: the cause, not the symptom, and the worst first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from justenough.domain.jobs.states import JobState
from justenough.domain.readmodel.dashboard import OverdueCredential, OverdueJob
from justenough.domain.readmodel.failed_systems import FailedSystem, group_by_system

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
TARGET = "target db.example.com:5432/shop: ConnectionTimeout"
LOCK = "lock in db.example.com:5432/shop: session 4711 of backup (application nightly) holds locks on what is left of the job, in a transaction since 2026-01-31T09:20:00Z"
LEASE = "lease database/creds/orders-read/x7: sys/leases/revoke: Vault answered 500 (failed to revoke entry)"
SEALED = "the job's token role: Vault at https://vault:8200 is sealed"


def job(number: int, *failures: str, credentials: int = 1, minutes: int = 0) -> OverdueJob:
    """A job whose revocation is overdue for this long."""
    held = tuple(OverdueCredential(id=f"c-{number}-{one}", resource="orders-db", action="read") for one in range(credentials))
    since = NOW - timedelta(minutes=minutes)
    return OverdueJob(id=f"j-{number}", name="n", state=JobState.REVOKING, since=since, failures=failures, credentials=held)


def only(*failures: str) -> FailedSystem:
    (system,) = group_by_system([job(1, *failures)])
    return system


@pytest.mark.parametrize(
    "failures, name, advice",
    [
        ((LEASE, TARGET), "Target db.example.com:5432/shop", "Start the database"),
        (("lease x/y: Vault at https://vault:8200 did not answer (ReadTimeout)", TARGET), "Target db.example.com:5432/shop", "Start"),
        ((LEASE,), "Vault", "rotate Vault's own login there"),
        ((SEALED, "lease x/y: Vault at https://vault:8200 did not answer (ConnectError)"), "Vault", "bao operator unseal"),
        (("the job's tokens: Vault at https://vault:8200 did not answer (ConnectError)",), "Vault", "Start it"),
        (("the job's tokens: sys/leases: Vault answered 403 (permission denied)",), "Vault", "justenough vault setup"),
        (("users in db.example.com:5432/shop: v-token-x",), "Target db.example.com:5432/shop", "by hand"),
        (
            ("lease x/y: Vault answered 500", LOCK, "space in db.example.com:5432/shop: space-j-1"),
            "Target db.example.com:5432/shop",
            "(psql -h db.example.com -p 5432 -d shop -U SUPERUSER) and end it: SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE pid = 4711 AND xact_start < timestamptz '2026-01-31T09:20:00Z' + interval '1s'",
        ),
        (
            ("lock in db.example.com:5432/shop: could not check which session holds one",),
            "Target db.example.com:5432/shop",
            "runbook",
        ),
        (("space in db.example.com:5432/shop: space-j-1",), "Target db.example.com:5432/shop", "by hand"),
        (("certificate pki/cert/1a:2b: not in the CRL that Vault serves",), "Vault's CRL at pki", "bao read MOUNT/crl/rotate"),
        (("the store: StoreUnavailable",), "Store", "JUSTENOUGH_DATABASE_URL"),
        (
            ("targets: this process has no valid configuration: x", "c-1-1: this process has no valid configuration: x; it ends at y"),
            "Workers",
            "configuration",
        ),
        (("c-1-1: its lease is not known and its target cannot be searched; it ends at x",), "Targets that cannot be searched", "Wait"),
        (("no result after 15 s",), "A step that hangs", "log"),
        (("something new",), "Other failures", "runbook"),
        ((), "Other failures", "runbook"),
    ],
)
def test_a_failure_names_its_system_and_what_to_do(failures: tuple[str, ...], name: str, advice: str) -> None:
    found = only(*failures)
    assert found.name == name
    assert advice in found.advice


def test_a_symptom_is_not_reported_along_with_its_cause() -> None:
    assert only(LEASE, TARGET, "no result after 15 s").failures == (TARGET,)
    assert only(LEASE, "no result after 15 s", "tokens under the job's prefix: 1 listed", "lease x/y: alive").failures == (LEASE,)


HANGS = "Vault at https://vault:8200 did not answer (ReadTimeout)"
VAULT_WAITS = (f"lease x/y: {HANGS}", f"the job's tokens: {HANGS}", "lease x/y: alive", f"target db.example.com:5432/shop: {HANGS}")
"""What a revocation finds while a target hangs: Vault waits for it."""


def test_a_vault_that_waits_for_a_target_is_not_blamed_unless_it_answers_nothing_else_either() -> None:
    assert only(*VAULT_WAITS).name == "Target db.example.com:5432/shop"
    assert only(f"the job's token role: {HANGS}", *VAULT_WAITS).name == "Vault"


def test_two_causes_of_one_job_are_two_systems() -> None:
    assert {system.name for system in group_by_system([job(1, TARGET, SEALED)])} == {"Target db.example.com:5432/shop", "Vault"}


def test_the_system_that_most_credentials_wait_for_comes_first_with_its_oldest_job() -> None:
    jobs = [job(1, SEALED, minutes=60), job(2, TARGET, credentials=2, minutes=5), job(3, TARGET, minutes=9)]
    target, vault = group_by_system(jobs)
    assert (target.name, len(target.credentials), [one.id for one in target.jobs]) == ("Target db.example.com:5432/shop", 3, ["j-3", "j-2"])
    assert target.since == NOW - timedelta(minutes=9)
    assert target.failures == (TARGET,), "told once, however many jobs wait"
    assert (vault.name, vault.since) == ("Vault", NOW - timedelta(minutes=60))
