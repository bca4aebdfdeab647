"""What `vault export` writes sets up an empty namespace as `vault apply` does, by an administrator who has only je-admin.hcl."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from justenough.domain.core.secret import Secret
from tests.worker.provisioning.provisioned_shop import CHANGES, SHOP, Emptied, Shop
from worker.provisioning.export import ExportFormat
from worker.provisioning.setup import VaultTarget, export_vault, plan_vault, provision_vault
from worker.stack.binaries import Programs

pytestmark = pytest.mark.servers

HARD = 'a \\ backslash, "quotes", a\ttab & a line\nbreak, and one of Windows\r\n'


def export(empty: Emptied, folder: Path, form: ExportFormat = "hcl") -> dict[str, str]:
    """Export into a folder; return the files."""
    files = export_vault(empty.settings, form, environment={"MODEL_URL": "http://127.0.0.1:8080/v1"})
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return files


def administrator(empty: Emptied, shop: Shop, policy: str) -> str:
    """Return a token of the namespace that may do only what this policy says."""
    empty.write("sys/policies/acl/je-admin", policy=policy)
    made = shop.admin.write(f"{empty.namespace}/auth/token/create", policies=["je-admin"], no_default_policy=True, no_parent=True)
    return str(made.json()["auth"]["client_token"])


def apply(empty: Emptied, folder: Path, token: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run apply.sh with this token."""
    named = {"VAULT_ADDR": empty.settings.vault_addr, "VAULT_NAMESPACE": empty.namespace, "VAULT_TOKEN": token}
    passed = {name: value for name, value in empty.environment.items() if name.startswith("SHOP_") or name in {"MINE", "OTHER"}}
    return subprocess.run(
        ("sh", str(folder / "apply.sh"), *words),
        # The wheel's own command is a Python program that starts this one.
        env={"PATH": f"{Programs().vault().parent}{os.pathsep}{os.environ['PATH']}", **named, **passed, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def remaining_changes(empty: Emptied) -> dict[str, tuple[str, ...]]:
    """Return what `vault apply` would still write into Vault; login files are elsewhere."""
    return {path: lines for path, lines in empty.changes().items() if not path.endswith(".json")}


KEPT = ("sys/mounts/", "database/config/", "pki/root/", "kv/data/models/")
"""Of the shop's provisioning, what stays in the small catalog: one process of `bao` writes each."""


SHELF: dict[str, Any] = {
    "title": "A shelf whose place the environment names",
    "environment": "prod",
    "sensitivity": "internal",
    "owner": "support-leads",
    "actions": {"read": {"issue": {"path": "kv/data/${SHOP_SHELF}"}, "max_ttl": "5m", "revocable": "never"}},
}


@pytest.fixture
def with_people(empty: Emptied, tmp_path: Path) -> Emptied:
    """A namespace in which people can log in already, for a small part of the shop's catalog, and with hard values."""
    for mount in ("people", "pages"):
        empty.write(f"sys/auth/{mount}", type="userpass")
    catalog = yaml.safe_load((SHOP / "catalog.yaml").read_text())
    orders = catalog["resources"]["orders-db"]
    del orders["target"]
    for action in orders["actions"].values():
        action.pop("space", None)
    mine = {"path": "kv/data/mine", "data": {"data": {"token": "<${MINE}>", "both": "${MINE}${OTHER}"}}}
    small = {
        "defaults": catalog["defaults"],
        "resources": {"orders-db": orders, "shelf": SHELF},
        "scopes": catalog["scopes"],
        "texts": catalog["texts"],
        "provision": [*(write for write in catalog["provision"] if write["path"].startswith(KEPT)), mine],
    }
    config = tmp_path / "config"
    config.mkdir()
    (config / "catalog.yaml").write_text(yaml.safe_dump(small, sort_keys=False))
    empty.settings = empty.settings.model_copy(update={"config": config})
    empty.environment |= {"MINE": HARD, "OTHER": "&", "SHOP_SHELF": "upper-shelf"}
    return empty


def test_the_script_does_what_apply_does_with_the_rights_of_je_admin(with_people: Emptied, shop: Shop, tmp_path: Path) -> None:
    out = tmp_path / "out"
    files = export(with_people, out)
    assert not [name for name, text in files.items() if HARD in text]
    token = administrator(with_people, shop, files["je-admin.hcl"])
    done = apply(with_people, out, token)
    assert done.returncode == 0, done.stderr
    assert with_people.read("sys/policies/acl/je-grant-shelf-read")["policy"].startswith('path "kv/data/upper-shelf"')
    assert "LEFT    identity/oidc/config: everybody in this Vault shares it" in done.stdout
    assert "kept    sys/auth/token/tune" in done.stdout, "Vault's default is longer"
    assert set(remaining_changes(with_people)) == {"identity/oidc/config"}
    assert with_people.read("kv/data/mine")["data"] == {"token": f"<{HARD}>", "both": f"{HARD}&"}
    for name in ("worker", "console"):
        login = json.loads((out / f"{name}.approle.json").read_text())
        assert (out / f"{name}.approle.json").stat().st_mode & 0o077 == 0
        assert with_people.call("auth/approle/login", **login).status_code == 200

    before = with_people.read("kv/data/models/default")["data"]
    with_people.write("sys/auth/token/tune", max_lease_ttl="1h")
    again = apply(with_people, out, token, "--change-shared")
    assert again.returncode == 0, again.stderr
    assert remaining_changes(with_people) == {}
    assert with_people.read("kv/data/models/default")["data"] == before, "made up once"
    assert "kept    sys/mounts/transit" in again.stdout


def test_apply_and_plan_need_no_more_rights_than_je_admin(with_people: Emptied, shop: Shop, tmp_path: Path) -> None:
    token = Secret(administrator(with_people, shop, export(with_people, tmp_path)["je-admin.hcl"]))
    options: Mapping[str, Any] = {
        "admin_token": token,
        "environment": with_people.environment,
    }
    planned = plan_vault(VaultTarget(with_people.settings, **options))
    provision_vault(VaultTarget(with_people.settings, **options))
    assert any(step.outcome in CHANGES for step in planned)
    assert with_people.changes() == {}


def test_a_missing_value_and_a_refusal_stop_the_script_and_say_why(with_people: Emptied, tmp_path: Path) -> None:
    export(with_people, tmp_path)
    missing = apply(with_people, tmp_path, "x", SHOP_PORT="")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr == "apply.sh: set and export SHOP_PORT: the catalog's provision writes it\n"
    refused = apply(with_people, tmp_path, "hvs.wrong")
    assert refused.returncode == 1
    assert "permission denied" in refused.stderr
    assert "apply.sh: whether sys/mounts/transit exists cannot be seen; what stands before it has been written" in refused.stderr
    assert refused.stdout == ""


def test_a_secret_that_cannot_be_read_is_not_taken_as_missing_and_replaced(with_people: Emptied, shop: Shop, tmp_path: Path) -> None:
    policy = export(with_people, tmp_path)["je-admin.hcl"]
    with_people.apply()
    before, rule = with_people.read("kv/data/models/default")["data"], 'path "kv/data/models/default" {\n  capabilities = ["create", '
    assert rule in policy
    blind = policy.replace(f'{rule}"read", ', rule)
    assert blind != policy
    again = apply(with_people, tmp_path, administrator(with_people, shop, blind))
    assert with_people.read("kv/data/models/default")["data"] == before
    assert again.returncode == 1
    assert "permission denied" in again.stderr
    assert "apply.sh: whether kv/data/models/default exists cannot be seen; what stands before it has been written" in again.stderr


def test_terraforms_policies_name_the_environments_values(with_people: Emptied, tmp_path: Path) -> None:
    document = json.loads(export(with_people, tmp_path, "terraform")["main.tf.json"])
    policies = {body["name"]: body["policy"] for body in document["resource"]["vault_policy"].values()}
    assert policies["je-grant-shelf-read"].startswith('path "kv/data/${var.SHOP_SHELF}"')
    assert "SHOP_SHELF" in document["variable"]


def test_terraforms_resources_follow_one_another_and_hold_no_secret(empty: Emptied, tmp_path: Path) -> None:
    """No Terraform runs here: this only reads the file."""
    document = json.loads(export(empty, tmp_path, "terraform")["main.tf.json"])
    resources = {
        f"{kind}.{name}": body for kind in ("vault_policy", "vault_generic_endpoint") for name, body in document["resource"][kind].items()
    }
    ordered = sorted(resources, key=lambda address: address.partition(".")[2])
    assert [resources[one].get("depends_on") for one in ordered] == [None, *([one] for one in ordered[:-1])]
    assert set(document["variable"]) == {"SHOP_HOST", "SHOP_PORT", "SHOP_VAULT_PASSWORD", "change_shared"}
    shared = {body["path"] for body in resources.values() if body.get("count") == "${var.change_shared ? 1 : 0}"}
    assert shared == {"identity/oidc/config", "sys/auth/token/tune"}
    (config,) = (body for body in resources.values() if body.get("path") == "database/config/shop")
    # A password with a quotation mark stays one text of the JSON.
    escaped = r"""${trimsuffix(trimprefix(jsonencode(var.SHOP_VAULT_PASSWORD), "\""), "\"")}"""
    assert f'"password": "{escaped}"' in config["data_json"]
    (alias, *_) = (body for body in resources.values() if body.get("path") == "identity/entity-alias")
    (source,) = re.findall(r'"canonical_id": "\$\{data\.vault_generic_secret\.(r[0-9]+)\.data\["id"\]\}"', alias["data_json"])
    assert document["data"]["vault_generic_secret"][source]["path"].startswith("identity/entity/name/je-scope-")


def test_the_command_writes_only_into_a_new_folder(empty: Emptied, tmp_path: Path) -> None:
    done = empty.command("vault", "export", str(tmp_path / "new"), VAULT_ADDR="http://127.0.0.1:1", VAULT_TOKEN="")
    assert (done.exit_code, done.stderr) == (0, "")
    assert os.access(tmp_path / "new" / "apply.sh", os.X_OK)
    assert (tmp_path / "new" / "policies" / "je-worker.hcl").read_text().startswith("path ")
    again = empty.command("vault", "export", str(tmp_path / "new"))
    assert (again.exit_code, again.stderr) == (2, f"error: {tmp_path / 'new'} is not empty; name a new folder\n")
    (tmp_path / "file").write_text("")
    refused = empty.command("vault", "export", str(tmp_path / "file"))
    assert (refused.exit_code, refused.stderr) == (1, f"error: {tmp_path / 'file'} cannot be written: File exists\n")
