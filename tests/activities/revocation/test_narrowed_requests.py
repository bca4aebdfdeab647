"""An approver narrows a request to another action: its credential is looked for as that action's, not as the requested one's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from justenough.domain.jobs.states import Action
from justenough.services.revocation_attempts import SECOND_CHECK_DELAY
from tests.activities.issuing_session import Session, start_session
from tests.activities.plain_roles import BY_DISPLAY_NAME, NOTHING, drop_user, open_plain_desk
from tests.activities.revocation_calls import revoke_from_outside
from tests.activities.vault_shop import Desk, Shop

pytestmark = pytest.mark.servers
READ: dict[str, Any] = {"resource": "orders-db", "action": "read", "ttl": "5m", "reason": "Look the order up"}
WRITE = {**READ, "action": "write", "reason": "Mend the order"}


def start_narrowed(at: Desk) -> Session:
    """Return the session of a job that requested to write, and may read."""
    return start_session(at, WRITE, tier=1, granted=Action.READ)


def show_search(at: Desk, access: dict[str, Any], *, tier: int = 0) -> None:
    """Let a search by job id find a live user of this action, so that it is trusted from now on."""
    session = start_session(at, access, tier=tier)
    user = session.issue().fields["username"].reveal()
    assert session.job in user
    session.end()
    drop_user(at.shop, user)


def exists(shop: Shop, user: str) -> bool:
    with psycopg.connect(shop.superuser, autocommit=True) as connection:
        return connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [user]).fetchone() is not None


def test_a_narrowed_credential_leaves_no_doubt_if_a_search_finds_users_of_the_granted_action(at: Desk) -> None:
    show_search(at, READ)
    session = start_narrowed(at)
    session.issue()
    assert revoke_from_outside(at, session.job).second_check_in is not None
    at.clock.ahead += SECOND_CHECK_DELAY
    assert revoke_from_outside(at, session.job).confirmed
    assert "credential.doubted" not in session.entry_types()


def test_a_search_that_finds_users_of_the_requested_action_lifts_no_doubt_of_the_granted_one(shop: Shop, tmp_path: Path) -> None:
    with open_plain_desk(shop, tmp_path, revocation=NOTHING) as at:
        show_search(at, WRITE, tier=1)
        session = start_narrowed(at)
        user = session.die_during(session.issue)
        assert session.job not in user
        assert any("its target cannot be searched" in why for why in revoke_from_outside(at, session.job).failures)
        (doubt,) = at.deps.store.credentials.list(job=session.job).items
        assert doubt.action == "read"
        assert exists(shop, user), "nobody knows of it, and nobody drops it"
        drop_user(shop, user)


def test_an_unrecorded_issue_is_searched_for_in_the_target_of_the_granted_action(
    shop: Shop, other_server: dict[str, str], tmp_path: Path
) -> None:
    def move_writes(catalog: dict[str, Any]) -> None:
        orders = catalog["resources"]["orders-db"]
        orders["actions"]["write"]["target"] = {**orders["target"], **other_server}

    with open_plain_desk(shop, tmp_path, template=BY_DISPLAY_NAME, revocation=NOTHING, change=move_writes) as at:
        show_search(at, READ)
        session = start_narrowed(at)
        user = session.die_during(session.issue)
        assert exists(shop, user)
        revoke_from_outside(at, session.job)
        assert not exists(shop, user), "this Vault revokes nothing, so its target ended it"
