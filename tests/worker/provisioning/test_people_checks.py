"""doctor's checks of people: tiers that nobody can approve, groups that do not exist, logins that live too long. In a namespace of its own."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from justenough.adapters.vault import Vault
from justenough.domain.core.secret import Secret
from tests.worker.provisioning.provisioned_shop import Emptied
from worker.stack.doctor import Examination, examine
from worker.stack.doctor.people import people_findings
from worker.stack.finding import DoctorFinding

pytestmark = pytest.mark.servers

APPROVALS = """
roles: {launch: [ops], read: [], break_glass: []}
tiers:
  1: {name: owner, approvers: [leads], quorum: 1, respond_within: 15m}
  2: {name: chief, approvers: [chiefs], quorum: 2, respond_within: 1h}
"""


class Office:
    """People in one namespace, and what doctor says of them."""

    def __init__(self, empty: Emptied, folder: Path) -> None:
        self.empty, self.folder = empty, folder
        (folder / "approvals.yaml").write_text(APPROVALS)

    def enable(self, mount: str, kind: str = "userpass") -> str:
        self.empty.write(f"sys/auth/{mount}", type=kind)
        return str(self.empty.read(f"sys/auth/{mount}")["accessor"])

    def person(self, name: str, accessor: str | None, **entity: Any) -> str:
        """Create an entity, with a login unless there is no accessor; return its id."""
        self.empty.write(f"identity/entity/name/{name}", **entity)
        found = str(self.empty.read(f"identity/entity/name/{name}")["id"])
        if accessor:
            self.empty.write("identity/entity-alias", name=name, canonical_id=found, mount_accessor=accessor)
        return found

    def group(self, name: str, *members: str, **group: Any) -> str:
        self.empty.write(f"identity/group/name/{name}", **({"member_entity_ids": list(members)} if members else {}), **group)
        return str(self.empty.read(f"identity/group/name/{name}")["id"])

    def findings(self, token: str | None = None, folder: Path | None = None, **settings: Any) -> dict[str, DoctorFinding]:
        found = people_findings(
            self.empty.settings.model_copy(update=settings),
            token=Secret(token or self.empty._shop.admin.token),
            folder=folder or self.folder,
        )
        return {finding.what: finding for finding in found}


@pytest.fixture
def office(empty: Emptied, tmp_path: Path) -> Office:
    return Office(empty, tmp_path)


def test_a_tier_needs_as_many_enabled_people_as_its_quorum(office: Office) -> None:
    people, other = office.enable("people"), office.enable("machines")
    lead, chief = office.person("lead", people), office.person("chief", people)
    gone, robot = office.person("gone", people, disabled=True), office.person("robot", other)
    office.group("ops", lead)
    office.group("leads", lead)

    none = office.findings()
    assert (none["tier 1 (owner)"].level, none["tier 1 (owner)"].found) == ("ok", "1 person can approve, and its quorum is 1")
    assert (none["tier 2 (chief)"].level, none["tier 2 (chief)"].found) == ("missing", "nobody can approve; Vault has no group chiefs")
    assert none["tier 2 (chief)"].remedy.startswith("Put people into chiefs, or lower the quorum in approvals.yaml")
    assert "roles" not in none

    office.group("chiefs", chief, gone, robot)
    few = office.findings()["tier 2 (chief)"]
    expected = "1 person can approve, and its quorum is 2; members that are disabled or have no login at people/: 2"
    assert (few.level, few.found) == ("missing", expected)

    office.person("gone", None, disabled=False)
    assert office.findings()["tier 2 (chief)"].level == "ok"


def test_members_of_nested_groups_and_of_higher_tiers_count(office: Office) -> None:
    people = office.enable("people")
    inner = office.group("emea", office.person("one", people), office.person("two", people))
    middle = office.group("abroad", member_group_ids=[inner])
    office.group("chiefs", member_group_ids=[middle])
    # Vault refuses groups that contain each other, so that no walk through them can be endless.
    found = office.findings()
    assert (found["tier 1 (owner)"].level, found["tier 2 (chief)"].level) == ("ok", "ok")
    assert found["roles"].found == "Vault has no group ops (launch), so nobody has these roles of approvals.yaml"


def test_a_group_whose_name_differs_in_case_does_not_count_as_it_does_not_for_workers(office: Office) -> None:
    ada = office.person("ada", office.enable("people"))
    group = office.group("Leads", ada)
    with closing(Vault(office.empty.settings.vault_addr, namespace=office.empty.namespace)) as vault:
        vault.login_token(Secret(office.empty._shop.admin.token))
        person = vault.person(ada, ["people"])
        assert person
        assert (sorted(person.groups), vault.members("leads", ["people"])) == (["Leads"], ())

        rename = f"bao write identity/group/id/{group} name=leads"
        launchers = f"only Ops: rename it (bao write identity/group/id/{office.group('Ops', ada)} name=ops)"
        found = office.findings()
        reasons = f"nobody can approve; Vault has no group leads, only Leads: rename it ({rename}); Vault has no group chiefs"
        assert found["tier 1 (owner)"].found == reasons
        assert found["roles"].found == f"Vault has no group ops (launch), {launchers}, so nobody has these roles of approvals.yaml"
        office.empty.write(f"identity/group/id/{group}", name="leads")
        assert office.findings()["tier 1 (owner)"].level == "ok"
        assert [member.name for member in vault.members("leads", ["people"])] == ["ada"]


def test_members_of_external_groups_are_not_guessed(office: Office) -> None:
    office.enable("people")
    office.group("chiefs", type="external")
    office.group("leads", member_group_ids=[office.group("sso-leads", type="external")])
    found = office.findings()
    for what, names in (("tier 1 (owner)", "leads, chiefs"), ("tier 2 (chief)", "chiefs")):
        assert (found[what].level, found[what].found) == (
            "warning",
            f"nobody can approve; members of external groups ({names}) are known only after they have logged in",
        )


def test_logins_that_live_longer_than_a_day_are_named_with_the_command_that_shortens_them(office: Office) -> None:
    office.enable("people")
    office.empty.write("auth/people/users/lead", password="long-password-1", token_policies=["je-person"])
    office.empty.write("auth/people/users/ops", password="long-password-2", token_max_ttl="8h")
    office.enable("pages-oidc", "oidc")
    office.empty.write(
        "auth/pages-oidc/role/pages", role_type="oidc", user_claim="sub", allowed_redirect_uris=["https://x.example/"], token_max_ttl="30h"
    )
    office.enable("pages", "cert")

    found = office.findings(pages_oidc_mount="pages-oidc")
    long = found["logins at people/"]
    assert (long.level, long.found) == ("warning", "a login can live for 768 h (lead)")
    assert long.remedy.startswith("bao auth tune -max-lease-ttl=8h people/ ")
    assert found["logins at pages-oidc/"].found == "a login can live for 30 h (pages)"
    # Nobody can log in at pages/ yet, but whoever is added there gets Vault's default.
    assert found["logins at pages/"].found == "a login can live for 768 h (any)"

    for mount in ("people", "pages", "pages-oidc"):
        office.empty.write(f"sys/auth/{mount}/tune", max_lease_ttl="8h")
    login = office.empty.call("auth/people/login/lead", password="long-password-1").json()["auth"]
    assert login["lease_duration"] == 8 * 3600, "so the command does what doctor says"
    found = office.findings(pages_oidc_mount="pages-oidc")
    assert {name: found[f"logins at {name}/"].level for name in ("people", "pages", "pages-oidc")} == dict.fromkeys(
        ("people", "pages", "pages-oidc"), "ok"
    )
    assert found["logins at people/"].found == "a login lives for 8 h at most"

    office.empty.write("auth/people/users/ops", token_period="1h")
    assert office.findings()["logins at people/"].found == "a login can be renewed without end (ops)"
    assert office.findings(people_mounts=("nowhere",))["logins at nowhere/"].found == "Vault has no auth method there"


def test_checks_that_could_not_be_made_are_reported_as_warnings(office: Office, tmp_path: Path) -> None:
    (none,) = people_findings(office.empty.settings, token=None, folder=office.folder)
    assert (none.level, "VAULT_TOKEN" in none.remedy) == ("warning", True)
    wrong = office.findings(token="hvs.wrong")["people"]
    assert (wrong.level, wrong.found) == (
        "warning",
        "approvers and the lifetimes of logins were not all checked: sys/auth could not be read",
    )
    (elsewhere,) = office.findings(vault_namespace="nowhere").values()
    assert (elsewhere.level, elsewhere.found) == ("missing", "Vault has no namespace 'nowhere'")
    # configuration_findings reports the broken file; logins are checked all the same.
    (tmp_path / "other").mkdir()
    assert set(office.findings(folder=tmp_path / "other")) == {"logins at people/", "logins at pages/"}


def test_doctor_checks_the_people_of_the_vault_that_the_environment_names(empty: Emptied, monkeypatch: pytest.MonkeyPatch) -> None:
    empty.apply()
    monkeypatch.setenv("VAULT_ADDR", empty.settings.vault_addr)
    monkeypatch.setenv("VAULT_TOKEN", empty._shop.admin.token)
    found = {finding.what: finding.level for finding in examine(Examination(empty.settings))}
    assert [found[f"tier {number}"] for number in ("1 (owner)", "2 (security)", "3 (chief)")] == ["missing"] * 3
