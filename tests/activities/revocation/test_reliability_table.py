"""The table of docs/explanation/reliability.md says what "confirmed" is based on. The code does what each row says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from activities.issuing.results import IssueRefused
from activities.revocation.outcome import TargetTraits, credential_events
from activities.revocation.proof import Inspection, why_unprovable
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.states import Action, Revocable
from tests.activities.issuing_session import start_session
from tests.activities.plain_roles import open_plain_desk
from tests.activities.revocation_calls import revoke_by_session, revoke_from_outside
from tests.activities.vault_shop import Desk, Shop, issue_decision

DOCS = Path(__file__).parents[3] / "docs" / "explanation" / "reliability.md"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def read_table() -> dict[str, tuple[str, str]]:
    """Return by engine and target what is said of it: after its job, and if Vault's answer was lost."""
    section = DOCS.read_text().partition('## What "confirmed" rests on\n')[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    return {engine: (after, lost) for engine, _, after, lost in rows[2:]}


TABLE = read_table()
DATABASE = CredentialHandle(
    id="c",
    request_id="r",
    resource="orders-db",
    action=Action.READ,
    lease_id="lease",
    accessor="acc",
    issued_at=NOW,
    expires_at=NOW + timedelta(minutes=5),
    revocable=Revocable.NOW,
)
KEPT = DATABASE.model_copy(update={"lease_id": None, "revocable": Revocable.NEVER})
NAMED = "database with `target`; users' names contain the job's id"
UNNAMED = "database with `target`; users are named otherwise"
UNSEEN = "`target` that shows no users (another server, no right to look)"
IN_DOUBT = "in doubt for its longest life, then expired"
OTHERS: dict[str, CredentialHandle] = {
    "any engine with leases, without `target`": DATABASE,
    "pki with `crl`": DATABASE.model_copy(update={"certificate": "pki/cert/1"}),
    "pki without `crl`, ssh (`on_expiry`)": DATABASE.model_copy(update={"lease_id": None, "revocable": Revocable.ON_EXPIRY}),
    "kv, static credentials, transit (`never`)": KEPT,
    "`never`, used only by the worker (a model's key, a tool call)": KEPT.model_copy(update={"held_by_job": False}),
}


def outcome_of(at: Desk, credential: CredentialHandle) -> str:
    """Return the last entry about a credential that was revoked, and whose handles were found dead, while it could still be valid."""
    seen = Inspection((), (), credential.handles, (), (), (), (), ())
    traits = TargetTraits(in_target=False, gives_space=False, unprovable=why_unprovable(at.deps, credential) is not None)
    *_, last = credential_events("j", credential, seen, traits, by="session", at=NOW)
    return last.type.value.removeprefix("credential.")


def is_doubted_after_another(at: Desk, number: int = 1) -> bool:
    """Whether an issue whose answer was lost is in doubt, after another one was found in the target, if the action has one."""
    earlier = at.job()
    revoke_by_session(at, earlier, at.issue(earlier, number))
    return is_doubted(at, number)


def is_doubted(at: Desk, number: int = 1) -> bool:
    """Whether an issue whose answer was lost is in doubt."""
    job = at.job()
    at.deps.store.ledger.append([issue_decision(job, number, at.clock.now())])
    revoke_from_outside(at, job)
    return "credential.doubted" in at.entry_types(job)


def test_every_row_of_the_reliability_table_is_tested() -> None:
    assert set(TABLE) == {NAMED, UNNAMED, UNSEEN, *OTHERS}


@pytest.mark.servers
@pytest.mark.parametrize("engine", OTHERS)
def test_a_credential_ends_after_its_job_as_the_reliability_table_says(at: Desk, engine: str) -> None:
    assert TABLE[engine][0].startswith(outcome_of(at, OTHERS[engine]))


@pytest.mark.servers
def test_a_lost_user_is_found_if_user_names_contain_the_job_id(at: Desk) -> None:
    assert TABLE[NAMED][0] == outcome_of(at, at.issue(at.job()).credential)
    assert TABLE[NAMED][1].startswith("found by the job's id")
    assert not is_doubted_after_another(at)


@pytest.mark.servers
def test_a_lost_user_is_in_doubt_if_user_names_do_not_contain_the_job_id(shop: Shop, tmp_path: Path) -> None:
    with open_plain_desk(shop, tmp_path) as at:
        assert TABLE[UNNAMED] == (outcome_of(at, at.issue(at.job()).credential), IN_DOUBT)
        assert is_doubted_after_another(at)


@pytest.mark.servers
def test_nothing_is_handed_out_if_a_target_shows_no_users(shop: Shop, other_server: dict[str, str], tmp_path: Path) -> None:
    with open_plain_desk(shop, tmp_path, target=other_server) as at:
        assert TABLE[UNSEEN][0].startswith("refused")
        session = start_session(at, {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "a test"})
        with pytest.raises(IssueRefused):
            session.issue()
        assert not session.end().confirmed
        assert TABLE[UNSEEN][1] == IN_DOUBT
        assert is_doubted(at)


@pytest.mark.servers
def test_without_a_target_a_lost_credential_is_in_doubt_unless_its_value_existed_before(blind: Desk) -> None:
    kept = {engine for engine, credential in OTHERS.items() if credential.revocable is Revocable.NEVER}
    assert {TABLE[engine][1] for engine in OTHERS.keys() - kept} == {IN_DOUBT}
    assert {TABLE[engine][1] for engine in kept} == {"nothing: the value is as valid as before"}
    assert is_doubted_after_another(blind)
    assert not is_doubted_after_another(blind, 3), "an API key from kv"
