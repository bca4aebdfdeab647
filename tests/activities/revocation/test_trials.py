"""A trial of an action leaves nothing behind, or says what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from justenough.adapters.vault import IssuedSecret, JobToken, Vault
from justenough.domain.catalog.models import ResolvedIssue
from justenough.domain.core.errors import InvalidInput, RetryLater
from justenough.domain.jobs.states import Action
from justenough.services import dependencies
from justenough.services.action_trial import TrialStep, try_action
from tests.activities.plain_roles import CREATION, NOTHING, drop_user, open_plain_desk, plain_users
from tests.activities.vault_shop import Shop, copy_config

pytestmark = pytest.mark.servers
FAILS = "SELECT 1/0"
ENVIRONMENT = {"SHOP_HOST": "127.0.0.1", "MODEL_URL": "http://127.0.0.1:65535/v1"}


def try_reading(shop: Shop, tmp_path: Path) -> dict[str, TrialStep]:
    """Try to read orders with the configuration of a test's desk; return the steps by name."""
    settings = shop.settings.model_copy(update={"config": tmp_path / "config"})
    environment = {**ENVIRONMENT, "SHOP_PORT": str(shop.door.port)}
    return {step.step: step for step in try_action(settings, environment, "orders-db", Action.READ, {})}


def test_a_trial_whose_credential_cannot_be_revoked_says_that_it_may_be_alive(shop: Shop, tmp_path: Path) -> None:
    def without_target(catalog: dict[str, Any]) -> None:
        catalog["resources"]["orders-db"]["actions"]["read"]["target"] = None
        del catalog["tools"]

    before = plain_users(shop)
    with open_plain_desk(shop, tmp_path, revocation=FAILS, change=without_target):
        steps = try_reading(shop, tmp_path)
        (left,) = plain_users(shop) - before
        drop_user(shop, left)
        shop.admin("PUT", "sys/leases/revoke-force/database/creds/plain-read")
    assert steps["revoke"].outcome == "failed"
    assert "may be alive" in steps["clean up"].found


def test_a_trial_ends_the_user_of_an_answer_that_was_lost_and_says_that_another_may_appear(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lossy(Vault):
        """The answer is lost, and so are the calls that would end what was issued, but for those in the target."""

        def issue(self, token: JobToken, what: ResolvedIssue) -> IssuedSecret:
            super().issue(token, what)
            assert shop.users_of("-token-j-")
            raise RetryLater("the answer was lost")

        def revoke_prefix(self, job: str) -> None:
            """Vault ends a token's leases some time after the token."""

    monkeypatch.setattr(dependencies, "Vault", Lossy)
    environment = {**ENVIRONMENT, "SHOP_PORT": str(shop.door.port)}
    before = set(shop.users_of("-token-j-"))
    steps = {step.step: step for step in try_action(shop.settings, environment, "orders-db", Action.READ, {"tenant": "acme"})}
    assert steps["issue"].outcome == "failed"
    assert set(shop.users_of("-token-j-")) <= before
    assert "may still create a user" in steps["clean up"].found


def test_a_trial_whose_user_outlives_its_lease_fails_and_names_the_user(shop: Shop, tmp_path: Path) -> None:
    before = plain_users(shop)
    with open_plain_desk(shop, tmp_path, revocation=NOTHING):
        steps = try_reading(shop, tmp_path)
        (left,) = plain_users(shop) - before
        drop_user(shop, left)
    assert [name for name, step in steps.items() if step.outcome == "failed"] == ["verify", "clean up"]
    assert "its name has no job id" in steps["find in target"].found
    assert steps["verify"].found == f"the target still has the user {left}: Vault's revocation_statements have not ended it"
    assert f"the target still has {left}" in steps["clean up"].found


def test_a_trial_fails_if_the_observer_does_not_see_the_user(shop: Shop, other_server: dict[str, str], tmp_path: Path) -> None:
    with open_plain_desk(shop, tmp_path, target=other_server):
        steps = try_reading(shop, tmp_path)
    assert [*steps] == ["issue", "find in target"], "it ends there, with nothing left"
    assert steps["find in target"].found.startswith("Vault created the user v-token-")
    assert "but the observer does not see it: check `target`" in steps["find in target"].found


def test_a_trial_fails_if_the_user_may_not_log_in(shop: Shop, tmp_path: Path) -> None:
    def forbid_login(catalog: dict[str, Any]) -> None:
        (role,) = (write["data"] for write in catalog["provision"] if write["path"] == "database/roles/plain-read")
        role["creation_statements"] = [CREATION.replace(" LOGIN ", " NOLOGIN ")]

    with open_plain_desk(shop, tmp_path, change=forbid_login):
        steps = try_reading(shop, tmp_path)
    assert [*steps] == ["issue", "find in target", "log in"]
    assert "is refused: " in steps["log in"].found
    assert "is not permitted to log in" in steps["log in"].found


def test_a_locked_action_is_not_tried(shop: Shop, tmp_path: Path) -> None:
    catalog = copy_config(tmp_path) / "catalog.yaml"
    raw = yaml.safe_load(catalog.read_text())
    raw["resources"]["orders-db"]["actions"]["read"]["lock"] = "control_group"
    # Tools cannot use locked actions.
    del raw["tools"]
    catalog.write_text(yaml.safe_dump(raw))
    with pytest.raises(InvalidInput, match=r"resources\.orders-db\.actions\.read: Vault issues it only after people have authorized"):
        try_reading(shop, tmp_path)
