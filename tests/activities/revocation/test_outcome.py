"""What the findings of a revocation mean for the ledger: tables, no server."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from activities.revocation.outcome import (
    RevocationAttempt,
    TargetTraits,
    confirmed_event,
    credential_events,
    credential_overdue_events,
    describe_certificate,
    expired_event,
    final_events,
    overdue_events,
    single_credential_events,
)
from activities.revocation.proof import Inspection
from justenough.adapters.targets.postgres import TargetTrace
from justenough.domain.contracts.workflow_messages import Finding
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.states import Action, Revocable
from justenough.domain.ledger.events import EventType
from justenough.domain.ledger.overdue import REVOCATION_GRACE

JOB = "j-acme-01m8722504qjpy8t9ny5kcdg6s"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=2)
HANDLE = CredentialHandle(
    id=f"{JOB}-1-1",
    request_id=f"{JOB}-1",
    resource="orders",
    action=Action.READ,
    lease_id="database/creds/x/1",
    accessor="acc",
    issued_at=NOW - timedelta(minutes=1),
    expires_at=NOW + timedelta(hours=1),
    revocable=Revocable.NOW,
    certificate=None,
)
VALUE, TIMED = (HANDLE.model_copy(update={"revocable": kind}) for kind in (Revocable.NEVER, Revocable.ON_EXPIRY))
LEASELESS = HANDLE.model_copy(update={"lease_id": None})
TRACE = TargetTrace(target="shop", name="v-je-user")
SEARCHED = TargetTraits(in_target=True, gives_space=False, unprovable=False)
BLIND = TargetTraits(in_target=False, gives_space=False, unprovable=False)
DOUBTED, UNSEEN = replace(BLIND, unprovable=True), replace(SEARCHED, unprovable=True)
ROOMY = TargetTraits(in_target=True, gives_space=True, unprovable=False)
DEAD = Inspection(
    findings=(Finding(what="lease database/creds/x/1", alive=False, detail="unknown to Vault"),),
    failures=(),
    dead=frozenset({"database/creds/x/1", "acc"}),
    users=(),
    empty_roles=(),
    spaces=(),
    targets=("shop",),
    target_failures=(),
)
REVOKED, CONFIRMED, EXPIRED = EventType.CREDENTIAL_REVOKED, EventType.CREDENTIAL_CONFIRMED, EventType.CREDENTIAL_EXPIRED
RESIDUAL = EventType.CREDENTIAL_RESIDUAL


def by_worker(credential: CredentialHandle) -> CredentialHandle:
    return credential.model_copy(update={"held_by_job": False})


@pytest.mark.parametrize(
    "credential, inspection, traits, at, expected",
    [
        pytest.param(HANDLE, DEAD, SEARCHED, NOW, [REVOKED, CONFIRMED], id="all dead"),
        pytest.param(HANDLE, replace(DEAD, dead=frozenset({"acc"})), SEARCHED, NOW, [], id="its lease was not seen dead"),
        pytest.param(HANDLE, replace(DEAD, users=(TRACE,)), SEARCHED, NOW, [REVOKED], id="a user is left"),
        pytest.param(HANDLE, replace(DEAD, users=(TRACE,)), BLIND, NOW, [REVOKED, CONFIRMED], id="a user of another target is left"),
        pytest.param(HANDLE, replace(DEAD, target_failures=("shop: down",)), SEARCHED, NOW, [REVOKED], id="its target was not seen"),
        pytest.param(HANDLE, replace(DEAD, spaces=(TRACE,)), ROOMY, NOW, [REVOKED], id="its space is left"),
        pytest.param(HANDLE, replace(DEAD, spaces=(TRACE,)), SEARCHED, NOW, [REVOKED, CONFIRMED], id="another one's space is left"),
        pytest.param(LEASELESS, DEAD, DOUBTED, NOW, [REVOKED], id="no lease and nobody can search"),
        pytest.param(LEASELESS, DEAD, DOUBTED, LATER, [REVOKED, EXPIRED], id="no lease, nobody can search, time over"),
        pytest.param(HANDLE, DEAD, UNSEEN, NOW, [REVOKED], id="its target does not show users"),
        pytest.param(HANDLE, DEAD, UNSEEN, LATER, [REVOKED, EXPIRED], id="its target does not show users, time over"),
        pytest.param(
            LEASELESS.model_copy(update={"accessor": None}),
            DEAD,
            SEARCHED,
            NOW,
            [CONFIRMED],
            id="no handle at all: nothing was revoked",
        ),
        pytest.param(VALUE, DEAD, BLIND, NOW, [REVOKED, RESIDUAL], id="never revocable"),
        pytest.param(VALUE, DEAD, BLIND, LATER, [REVOKED, RESIDUAL], id="never revocable, and time changes nothing"),
        pytest.param(by_worker(VALUE), DEAD, BLIND, NOW, [REVOKED, EXPIRED], id="never revocable, but the job never had it"),
        pytest.param(TIMED, DEAD, BLIND, NOW, [REVOKED, RESIDUAL], id="on expiry, still valid"),
        pytest.param(by_worker(TIMED), DEAD, BLIND, NOW, [REVOKED], id="on expiry, still valid, but the job never had it"),
        pytest.param(TIMED, DEAD, BLIND, LATER, [REVOKED, EXPIRED], id="on expiry, over"),
    ],
)
def test_observations_of_a_credential_become_the_expected_events(
    credential: CredentialHandle, inspection: Inspection, traits: TargetTraits, at: datetime, expected: list[EventType]
) -> None:
    found = list(credential_events(JOB, credential, inspection, traits, by="session", at=at))
    assert [event.type for event in found] == expected
    assert {event.data["credential"] for event in found} <= {HANDLE.id}


@pytest.mark.parametrize(
    "credential, traits, targets, how",
    [
        (HANDLE, SEARCHED, ("shop",), "its lease and token are unknown to Vault; no user of the job in shop"),
        (HANDLE, SEARCHED, (), "its lease and token are unknown to Vault"),
        (HANDLE, BLIND, ("shop",), "its lease and token are unknown to Vault"),
        (HANDLE, ROOMY, ("shop", "files"), "its lease and token are unknown to Vault; no user and no space of the job in shop, files"),
        (LEASELESS, SEARCHED, ("shop",), "its token is unknown to Vault; no user of the job in shop"),
    ],
)
def test_a_confirmation_says_how_the_end_was_verified(
    credential: CredentialHandle, traits: TargetTraits, targets: tuple[str, ...], how: str
) -> None:
    *_, last = credential_events(JOB, credential, replace(DEAD, targets=targets), traits, by="session", at=NOW)
    assert last.type is CONFIRMED
    assert last.data["how"] == how


@pytest.mark.parametrize(
    "dead_since, done_at",
    [
        (None, None),
        (NOW - timedelta(minutes=3), (NOW - timedelta(minutes=3)).isoformat()),
        (NOW, None),
        (NOW + timedelta(seconds=1), None),
    ],
)
def test_a_credential_that_an_earlier_attempt_found_dead_is_dated_to_that_attempt(dead_since: datetime | None, done_at: str | None) -> None:
    events = credential_events(JOB, HANDLE, DEAD, replace(SEARCHED, dead_since=dead_since), by="sweep", at=NOW)
    assert [(event.type, event.data.get("done_at")) for event in events] == [(REVOKED, done_at), (CONFIRMED, done_at)]


@pytest.mark.parametrize(
    "credential, until, why",
    [
        (VALUE, None, "it cannot be revoked: its token is dead, but the secret that was read stays valid until its owner changes it"),
        (TIMED, HANDLE.expires_at.isoformat(), "it cannot be revoked early; only its token is dead"),
    ],
)
def test_a_residual_credential_says_until_when_it_stays_valid_and_why(credential: CredentialHandle, until: str | None, why: str) -> None:
    *_, last = credential_events(JOB, credential, DEAD, BLIND, by="session", at=NOW)
    assert (last.type, last.data["until"], last.data["why"]) == (RESIDUAL, until, why)


@pytest.mark.parametrize(
    "credential, at, why",
    [
        (by_worker(VALUE), NOW, "it cannot be revoked, but the job never had it: only the worker used it, and its token is dead"),
        (TIMED, LATER, "it could not be revoked early, and its expiry time has passed"),
        (HANDLE, LATER, "its target could not show that it was gone; its expiry time has passed"),
        (LEASELESS, LATER, "its lease was never known and its target cannot be searched; its expiry time has passed"),
    ],
)
def test_a_credential_that_only_expired_says_why(credential: CredentialHandle, at: datetime, why: str) -> None:
    *_, last = credential_events(JOB, credential, DEAD, UNSEEN, by="session", at=at)
    assert (last.type, last.data["why"]) == (EXPIRED, why)


@pytest.mark.parametrize(
    "certificate, at, said",
    [
        (None, NOW, ""),
        ("pki/cert/1", NOW, "; its certificate pki/cert/1 is in the CRL that Vault serves"),
        ("pki/cert/1", HANDLE.expires_at, "; its certificate pki/cert/1 has expired"),
        ("pki/cert/1", LATER, "; its certificate pki/cert/1 has expired"),
    ],
)
def test_a_certificate_is_dead_by_its_crl_or_by_its_time(certificate: str | None, at: datetime, said: str) -> None:
    assert describe_certificate(HANDLE.model_copy(update={"certificate": certificate}), at=at) == said


@pytest.mark.parametrize(
    "credential, revocable, why",
    [
        (HANDLE, Revocable.NEVER, "it cannot be revoked, but the job never had it: only the worker used it"),
        (HANDLE, Revocable.ON_EXPIRY, "it could not be revoked early, and its expiry time has passed"),
        (HANDLE, Revocable.NOW, "its target could not show that it was gone; its expiry time has passed"),
        (LEASELESS, Revocable.NOW, "its lease was never known and its target cannot be searched; its expiry time has passed"),
    ],
)
def test_an_expired_credential_says_why_nothing_else_could_end_it(credential: CredentialHandle, revocable: Revocable, why: str) -> None:
    event = expired_event(JOB, credential.model_copy(update={"revocable": revocable}), at=LATER)
    assert (event.type, event.data["why"], event.data["revocable"]) == (EXPIRED, why, revocable)


def test_a_credential_that_cannot_be_proven_dead_ends_only_at_its_expiry() -> None:
    assert [event.type for event in final_events(JOB, LEASELESS, at=HANDLE.expires_at, how="", provable=False, token_dead=True)] == [
        EXPIRED
    ]
    assert not list(final_events(JOB, LEASELESS, at=HANDLE.expires_at - timedelta(microseconds=1), how="", provable=False, token_dead=True))


@pytest.mark.parametrize(
    "credential, why",
    [
        (VALUE, "it cannot be revoked: the secret that was read stays valid until its owner changes it"),
        (TIMED, "it cannot be revoked early"),
        (by_worker(VALUE), "it cannot be revoked, but the job never had it: only the worker used it"),
    ],
)
def test_the_end_of_a_single_credential_says_nothing_of_its_token_which_lives_on(credential: CredentialHandle, why: str) -> None:
    *_, last = single_credential_events(
        JOB, credential.model_copy(update={"lease_id": None}), by="session", why="released", began=NOW, at=NOW, how=""
    )
    assert last.data["why"] == why


@pytest.mark.parametrize("credential, expected", [(HANDLE, [REVOKED, CONFIRMED]), (LEASELESS, [])])
def test_a_credential_without_a_lease_is_never_called_revoked(credential: CredentialHandle, expected: list[EventType]) -> None:
    found = list(single_credential_events(JOB, credential, by="person", why="its revocation was requested", began=NOW, at=NOW, how="seen"))
    assert [event.type for event in found] == expected


def _attempt(*, took: timedelta = timedelta()) -> RevocationAttempt:
    return RevocationAttempt("session-20260301", "session", NOW, NOW - timedelta(seconds=1), took)


def test_a_confirmation_carries_what_was_seen() -> None:
    event = confirmed_event(JOB, _attempt(), DEAD)
    assert event.type is EventType.REVOCATION_CONFIRMED
    assert event.data == {"by": "session", "proof": {"lease database/creds/x/1": "unknown to Vault"}}


@pytest.mark.parametrize(
    "failed, took, is_recorded",
    [
        (1, timedelta(), False),
        (1, REVOCATION_GRACE, True),
        (2, timedelta(), True),
        (3, timedelta(), False),
        (3, REVOCATION_GRACE, False),
        (4, timedelta(), True),
        (64, timedelta(), True),
        (65, timedelta(), False),
    ],
)
def test_a_failing_revocation_is_overdue_after_its_first_failure_and_recorded_ever_more_rarely(
    failed: int, took: timedelta, *, is_recorded: bool
) -> None:
    found = list(overdue_events(JOB, _attempt(took=took), failures=("shop: down",), failed=failed))
    assert [event.data for event in found] == [
        {"by": "session", "failures": ["shop: down"], "attempt": failed, "seen_from": "2026-03-01T11:59:59+00:00"}
    ] * is_recorded


@pytest.mark.parametrize(
    "by, failed, took, is_recorded",
    [
        ("person", 1, timedelta(), True),
        ("session", 1, timedelta(), False),
        ("session", 1, REVOCATION_GRACE, True),
        ("session", 2, timedelta(), True),
        ("person", 3, timedelta(), False),
    ],
)
def test_a_failure_to_end_a_credential_is_overdue_at_once_for_a_person_and_later_for_a_session(
    by: str, failed: int, took: timedelta, *, is_recorded: bool
) -> None:
    found = credential_overdue_events(JOB, HANDLE.id, by=by, at=NOW, started=NOW, took=took, failures=("down",), failed=failed)
    assert [event.data for event in found] == [{"credential": HANDLE.id, "by": by, "failures": ["down"], "attempt": failed}] * is_recorded
