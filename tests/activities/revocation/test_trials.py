"""What a trial of an action leaves behind: nothing, or it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from justenough.adapters.vault import IssuedSecret, JobToken, Vault
from justenough.domain.catalog.models import ResolvedIssue
from justenough.domain.core.errors import RetryLater
from justenough.domain.jobs.states import Action
from justenough.services import dependencies
from justenough.services.action_trial import try_action
from tests.activities.plain_roles import drop_user, open_plain_desk, plain_users
from tests.activities.vault_shop import Shop

pytestmark = pytest.mark.servers
FAILS = "SELECT 1/0"
ENVIRONMENT = {"SHOP_HOST": "127.0.0.1", "MODEL_URL": "http://127.0.0.1:65535/v1"}


def test_a_trial_whose_credential_cannot_be_revoked_says_that_it_may_be_alive(shop: Shop, tmp_path: Path) -> None:
    def without_target(catalog: dict[str, Any]) -> None:
        catalog["resources"]["orders-db"]["actions"]["read"]["target"] = None
        del catalog["tools"]

    before = plain_users(shop)
    with open_plain_desk(shop, tmp_path, revocation=FAILS, change=without_target):
        settings = shop.settings.model_copy(update={"config": tmp_path / "config"})
        environment = {**ENVIRONMENT, "SHOP_PORT": str(shop.door.port)}
        steps = {step.step: step for step in try_action(settings, environment, "orders-db", Action.READ, {})}
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
