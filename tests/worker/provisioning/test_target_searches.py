"""`vault setup` and `doctor` name what in a real Vault makes a search in a target impossible."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from justenough.domain.catalog.loader import read_catalog, with_settings
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.secret import Secret
from tests.worker.provisioning.provisioned_shop import Shop, config_with
from worker.provisioning.admin_client import WriteOutcome
from worker.stack.doctor.vault import vault_findings

pytestmark = pytest.mark.servers
TEMPLATE = "'{{ printf \"%s-%s-%s\" (random 8) .DisplayName .RoleName | truncate 63 }}'"


@pytest.fixture
def broken(shop: Shop, tmp_path: Path) -> Iterator[Path]:
    """A catalog with Vault's default template and an observer that nobody created. The shop's own Vault is restored."""
    config = config_with(tmp_path, TEMPLATE, '""')
    catalog = config / "catalog.yaml"
    catalog.write_text(catalog.read_text().replace("observe: database/creds/je-observer", "observe: database/creds/nobody", 1))
    yield config
    shop.setup()


def catalog_of(shop: Shop, config: Path) -> Catalog:
    return with_settings(read_catalog((config / "catalog.yaml").read_bytes()), shop.environment)


def role_findings(shop: Shop, config: Path, token: str) -> dict[str, tuple[str, str]]:
    findings = vault_findings(shop.admin.address, token=Secret(token), catalog=catalog_of(shop, config))
    return {
        finding.what: (finding.level, f"{finding.found} {finding.remedy}")
        for finding in findings
        if finding.what.startswith("vault ro") or "/" in finding.what
    }


def test_a_template_and_an_observer_that_cannot_work_are_named(shop: Shop, broken: Path) -> None:
    named = {step.path: step for step in shop.setup(config=broken) if step.outcome in {WriteOutcome.KEPT, WriteOutcome.MISSING}}
    assert {path: step.outcome for path, step in named.items()} == {
        "database/roles/nobody": WriteOutcome.MISSING,
        "database/config/shop": WriteOutcome.KEPT,
    }
    assert "it does not exist, but resources.orders-db.actions.read.target.observe needs it" in named["database/roles/nobody"].note
    assert "Vault's default username_template cuts the display name" in named["database/config/shop"].note

    found = role_findings(shop, broken, shop.admin.token)
    assert {what: level for what, (level, _) in found.items()} == {
        "vault database/roles/nobody": "missing",
        "vault database/config/shop": "warning",
    }
    assert "stays in doubt until it must have ended" in found["vault database/config/shop"][1]


def test_doctor_says_nothing_about_roles_if_the_catalog_has_no_targets(shop: Shop) -> None:
    whole = catalog_of(shop, shop.settings.config)
    others = {name: item for name, item in whole.resources.items() if not any(action.target for action in item.actions.values())}
    assert others
    catalog = whole.model_copy(update={"resources": others})
    found = [finding.what for finding in vault_findings(shop.admin.address, token=Secret(shop.admin.token), catalog=catalog)]
    assert "vault seal" in found
    assert "vault roles of targets" not in found


def test_doctor_says_that_the_shops_roles_exist_or_that_it_could_not_read_them(shop: Shop) -> None:
    shop.setup()
    found = role_findings(shop, shop.settings.config, shop.admin.token)
    level, text = found["vault roles of targets"]
    assert (level, re.sub(r"^\d+ ", "N ", text)) == ("ok", "N roles and connections exist, and no template is known to hide the job's id ")
    found = role_findings(shop, shop.settings.config, "s.wrong")
    assert found == {
        "vault roles of targets": (
            "warning",
            "could not read database/roles/orders-read-acme Set VAULT_TOKEN to a token that may read the catalog's database roles and connections.",
        )
    }
