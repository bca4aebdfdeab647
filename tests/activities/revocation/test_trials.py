"""What a trial of an action leaves behind: nothing, or it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from justenough.domain.jobs.states import Action
from justenough.services.action_trial import try_action
from tests.activities.plain_roles import drop_user, open_plain_desk, plain_users
from tests.activities.vault_shop import Shop

pytestmark = pytest.mark.servers
FAILS = "SELECT 1/0"


def test_a_trial_whose_credential_cannot_be_revoked_says_that_it_may_be_alive(shop: Shop, tmp_path: Path) -> None:
    def without_target(catalog: dict[str, Any]) -> None:
        catalog["resources"]["orders-db"]["actions"]["read"]["target"] = None
        del catalog["tools"]

    before = plain_users(shop)
    with open_plain_desk(shop, tmp_path, revocation=FAILS, change=without_target):
        settings = shop.settings.model_copy(update={"config": tmp_path / "config"})
        environment = {"SHOP_HOST": "127.0.0.1", "SHOP_PORT": str(shop.door.port), "MODEL_URL": "http://127.0.0.1:65535/v1"}
        steps = {step.step: step for step in try_action(settings, environment, "orders-db", Action.READ, {})}
        (left,) = plain_users(shop) - before
        drop_user(shop, left)
        shop.admin("PUT", "sys/leases/revoke-force/database/creds/plain-read")
    assert steps["revoke"].outcome == "failed"
    assert "may be alive" in steps["clean up"].found
