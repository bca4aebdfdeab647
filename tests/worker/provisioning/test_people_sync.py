"""`people sync` creates people whom workers recognise, disables those who left, and changes nothing that it did not create. In a namespace."""

from __future__ import annotations

import asyncio
import re
import shlex
import socket
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from justenough.adapters.vault import Vault
from justenough.domain.approvals.tiers import Person
from justenough.domain.core.errors import InvalidInput
from justenough.domain.core.secret import Secret
from tests.support.tls_authority import create_authority
from tests.support.tls_front import serve_tls
from tests.worker.provisioning.provisioned_shop import Emptied
from worker.provisioning import people_sync
from worker.provisioning.admin_client import AppliedWrite, VaultNotReady, WriteOutcome
from worker.provisioning.people_source import ReadPeople, read_people
from worker.provisioning.people_sync import plan_people, sync_people
from worker.provisioning.plan import PlannedWrite

pytestmark = pytest.mark.servers

PASSWORD = "a-long-password-1"


class Office:
    """People in one namespace, with userpass at `people` and `pages`."""

    def __init__(self, empty: Emptied, folder: Path) -> None:
        self.empty, self.file = empty, folder / "people.yaml"
        for mount in ("people", "pages"):
            empty.write(f"sys/auth/{mount}", type="userpass")

    def write(self, text: str) -> Path:
        self.file.write_text(f"people:\n{text}" if text.startswith(" ") else text)
        return self.file

    def sync(self, text: str, *, remove: bool = False) -> dict[str, AppliedWrite]:
        people = read_people("people.yaml", self.write(text).read_bytes())
        return {step.path: step for step in sync_people(self.empty.settings, people, **self._vault, remove=remove)}

    def plan(self, text: str, *, remove: bool = False) -> dict[str, PlannedWrite]:
        people = read_people("people.yaml", self.write(text).read_bytes())
        return {step.path: step for step in plan_people(self.empty.settings, people, **self._vault, remove=remove)}

    @property
    def _vault(self) -> dict[str, Any]:
        return {"admin_token": Secret(self.empty._shop.admin.token)}

    def log_in(self, name: str, mount: str = "people") -> str:
        """Log in with a password; return the entity's id."""
        self.empty.write(f"auth/{mount}/users/{name}", password=PASSWORD, token_policies=["default"])
        return str(self.empty.call(f"auth/{mount}/login/{name}", password=PASSWORD).json()["auth"]["entity_id"])

    def id_of(self, name: str) -> str:
        return str(self.empty.read(f"identity/entity/name/{name}")["id"])

    def members(self, group: str) -> list[str]:
        return list(self.empty.read(f"identity/group/name/{group}")["member_entity_ids"] or [])

    def person(self, name: str) -> Person | None:
        """Return the person as a worker sees them."""
        with closing(Vault(self.empty.settings.vault_addr, namespace=self.empty.namespace)) as vault:
            vault.login_token(Secret(self.empty._shop.admin.token))
            return vault.person(self.id_of(name), self.empty.settings.people_mounts)


@pytest.fixture
def office(empty: Emptied, tmp_path: Path) -> Office:
    return Office(empty, tmp_path)


def test_a_plan_says_what_sync_then_does_and_writes_nothing(office: Office) -> None:
    text = "  lead: {groups: [support-leads, ops]}\n  ada: {groups: [ops], logins: {pages: ada.lovelace}}\n"
    planned = office.plan(text)
    assert office.empty._shop.admin.list(f"{office.empty.namespace}/identity/entity/name").status_code == 404
    assert planned["identity/group/name/ops"].lines == ("+ type: internal", '+ member_entity_ids: ["ada","lead"]')
    assert planned["identity/entity-alias/pages/ada.lovelace"].note == "the login of ada"

    applied = office.sync(text)
    assert {path: step.outcome for path, step in planned.items()} == {path: step.outcome for path, step in applied.items()}
    assert {step.outcome for step in applied.values()} == {WriteOutcome.CREATED}
    assert {step.outcome for step in office.sync(text).values()} == {WriteOutcome.UNCHANGED}

    assert office.log_in("lead") == office.log_in("lead", "pages") == office.id_of("lead")
    assert office.log_in("ada.lovelace", "pages") == office.log_in("ada") == office.id_of("ada")
    lead = office.person("lead")
    assert lead
    assert (lead.name, sorted(lead.groups)) == ("lead", ["ops", "support-leads"])

    changed = office.plan(text.replace("groups: [ops]", "groups: [ops, support-leads]"))["identity/group/name/support-leads"]
    assert changed.lines == ('- member_entity_ids: ["lead"]', '+ member_entity_ids: ["ada","lead"]')


@pytest.mark.parametrize("other", ["team/ops", "ops#2", "ops?x=1", "%6fps"])
def test_a_group_whose_name_resembles_a_listed_group_gets_nobody_and_loses_only_people_of_the_sync(office: Office, other: str) -> None:
    text = "  lead: {groups: [ops]}\n  ada: {groups: [ops]}\n"
    office.sync(text)
    robot = office.empty._shop.admin.write(f"{office.empty.namespace}/identity/entity", name="robot").json()["data"]["id"]
    members = {"name": other, "member_entity_ids": [office.id_of("lead"), robot]}
    group = office.empty._shop.admin.write(f"{office.empty.namespace}/identity/group", **members).json()["data"]["id"]

    note = office.sync(text)[f"identity/group/name/{other}"].note
    assert note == "not listed: lead; --remove takes them out"
    assert set(office.empty.read(f"identity/group/id/{group}")["member_entity_ids"]) == {office.id_of("lead"), robot}

    assert office.sync(text, remove=True)[f"identity/group/name/{other}"].outcome is WriteOutcome.CHANGED
    assert office.empty.read(f"identity/group/id/{group}")["member_entity_ids"] == [robot]
    assert set(office.members("ops")) == {office.id_of("lead"), office.id_of("ada")}


def test_a_group_whose_name_differs_in_case_is_not_renamed_so_that_its_members_get_no_rights(office: Office) -> None:
    admin, space, text = office.empty._shop.admin, office.empty.namespace, "  lead: {groups: [ops]}\n"
    robot = admin.write(f"{space}/identity/entity", name="robot").json()["data"]["id"]
    group = admin.write(f"{space}/identity/group", name="Ops", member_entity_ids=[robot]).json()["data"]["id"]

    step = office.sync(text)["identity/group/name/ops"]
    rename = f"bao write identity/group/id/{group} name=ops"
    assert (step.outcome, step.note) == (WriteOutcome.KEPT, f"Vault has no group ops, only Ops: rename it ({rename})")
    kept = office.empty.read(f"identity/group/id/{group}")
    assert (kept["name"], kept["member_entity_ids"]) == ("Ops", [robot])

    admin.write(f"{space}/identity/group/id/{group}", name="ops")
    assert office.sync(text)["identity/group/name/ops"].outcome is WriteOutcome.CHANGED
    assert set(office.members("ops")) == {office.id_of("lead"), robot}


def test_a_person_who_is_not_listed_keeps_everything_without_the_option_remove(office: Office) -> None:
    office.sync("  lead: {groups: [ops, support-leads]}\n  gone: {groups: [ops]}\n")
    by_hand = office.empty._shop.admin.write(f"{office.empty.namespace}/identity/entity", name="robot").json()["data"]["id"]
    office.empty.write("identity/group/name/ops", member_entity_ids=[*office.members("ops"), by_hand])
    fewer = "  lead: {groups: [ops]}\n"

    kept = office.sync(fewer)
    assert kept["identity/entity/name/gone"].note == "not listed; --remove disables it"
    assert kept["identity/group/name/ops"].note == "not listed: gone; --remove takes them out"
    assert kept["identity/group/name/support-leads"].note == "not listed: lead; --remove takes them out"
    gone = office.person("gone")
    assert gone
    assert gone.groups == {"ops"}

    planned = {path: step.outcome for path, step in office.plan(fewer, remove=True).items()}
    # Those who left come first: a sync that is interrupted has ended their access.
    assert next(iter(planned)) == "identity/entity/name/gone"
    assert planned == {path: step.outcome for path, step in office.sync(fewer, remove=True).items()}
    assert office.person("gone") is None
    assert (set(office.members("ops")), office.members("support-leads")) == ({by_hand, office.id_of("lead")}, [])
    assert not office.empty.read("identity/entity/name/robot")["disabled"]
    assert {step.outcome for step in office.plan(fewer, remove=True).values()} == {WriteOutcome.UNCHANGED}

    # Somebody who comes back is the same person, with the same signing key.
    before = office.id_of("gone")
    office.sync("  lead: {groups: [ops]}\n  gone: {groups: [ops]}\n")
    back = office.person("gone")
    assert back
    assert (back.id, sorted(back.groups)) == (before, ["ops"])


def test_a_person_who_is_not_active_is_disabled_and_never_created(office: Office) -> None:
    office.sync("  ada: {groups: [ops]}\n")
    office.empty.write("identity/entity/name/robot", metadata={"team": "machines"})
    steps = office.sync("  ada: {groups: [ops], active: false}\n  robot: {active: false}\n  never: {active: false}\n")
    assert office.person("ada") is None
    assert steps["identity/entity/name/ada"].outcome is WriteOutcome.CHANGED
    assert steps["identity/entity/name/robot"].note == "not active, but people sync did not create this entity"
    assert not office.empty.read("identity/entity/name/robot")["disabled"]
    assert "identity/entity/name/never" not in steps


def test_a_person_whom_an_administrator_disabled_stays_disabled_whatever_the_list_says(office: Office) -> None:
    text, path = "  ada: {groups: [ops]}\n", "identity/entity/name/ada"
    office.sync(text)
    office.empty.write(path, disabled=True)
    enables = f"disabled by somebody else: bao write {path} disabled=false enables it"
    for listed in (text, "  ada: {groups: [ops], active: false}\n", text):
        planned, applied = office.plan(listed)[path], office.sync(listed)[path]
        assert planned.note == applied.note == (enables if listed == text else "")
        assert office.person("ada") is None

    office.empty.write(path, disabled=False)
    assert office.person("ada")


def test_a_person_whom_an_administrator_disables_during_a_sync_stays_disabled(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "  ada: {groups: [ops]}\n  eve: {groups: [ops]}\n"
    office.sync(text)
    read = people_sync._Directory.read

    def read_before_the_emergency(*given: Any) -> Any:
        directory = read(*given)
        office.empty.write("identity/entity/name/eve", disabled=True)
        return directory

    monkeypatch.setattr(people_sync._Directory, "read", read_before_the_emergency)
    office.sync(text)
    assert office.person("ada")
    assert office.person("eve") is None


def test_sync_enables_again_whom_it_disabled_but_not_whom_an_administrator_disabled_after_that(office: Office) -> None:
    text, path = "  ada: {groups: [ops]}\n", "identity/entity/name/ada"
    office.sync(text)
    office.empty.write(path, metadata={"made_by": "justenough-people", "desk": "12"})
    office.sync("  ada: {groups: [ops], active: false}\n")
    assert office.person("ada") is None
    office.sync(text)
    assert office.person("ada")
    assert office.empty.read(path)["metadata"] == {"made_by": "justenough-people", "desk": "12"}

    office.empty.write(path, disabled=True)
    office.sync(text)
    assert office.person("ada") is None


def test_objects_that_sync_did_not_create_are_named_before_any_write_and_can_be_handed_over(office: Office) -> None:
    office.empty.write("identity/entity/name/lead", metadata={"team": "support"})
    logged_in = office.log_in("ada")
    text = "  new: {groups: [ops]}\n  lead: {groups: [ops]}\n  ada: {groups: [ops]}\n"
    with pytest.raises(InvalidInput) as refused:
        office.sync(text)
    by_name, by_login = refused.value.problems
    assert by_name.message.startswith("Vault has an entity of this name that people sync did not create. If it is this person, ")
    assert by_login.path == "ada.logins.people"
    assert by_login.message.startswith("Vault knows the login ada as entity_")
    assert "new" not in office.empty._shop.admin.list(f"{office.empty.namespace}/identity/entity/name").json()["data"]["keys"]

    for problem in refused.value.problems:
        _, _, path, *values = shlex.split(problem.message.partition("hand it over: ")[2])
        data = dict(value.split("=", 1) for value in values)
        office.empty.write(path, name=data["name"], metadata=data["metadata"])
    office.sync(text)
    assert office.id_of("ada") == logged_in
    ada = office.person("ada")
    assert ada
    assert ada.groups == {"ops"}


def test_people_who_left_are_disabled_although_another_login_conflicts(office: Office) -> None:
    office.sync("  eve: {groups: [ops]}\n  max: {}\n  ada.old: {logins: {people: ada}}\n  gone: {}\n", remove=True)
    text = "  eve: {active: false}\n  max: {}\n  ada: {groups: [ops]}\n"
    with pytest.raises(InvalidInput):
        office.plan(text, remove=True)
    assert not office.empty.read("identity/entity/name/eve")["disabled"]
    with pytest.raises(InvalidInput) as refused:
        office.sync(text, remove=True)
    conflict, note = map(str, refused.value.problems)
    assert conflict.startswith("ada.logins.people: Vault knows the login ada as ada.old. If it is this person, hand it over: ")
    assert note == "nothing was written, except that these people, who left, are now disabled: eve, gone"
    names = office.empty._shop.admin.list(f"{office.empty.namespace}/identity/entity/name").json()["data"]["keys"]
    disabled = {name: office.empty.read(f"identity/entity/name/{name}")["disabled"] for name in names}
    assert disabled == {"eve": True, "max": False, "ada.old": False, "gone": True}


def test_nobody_is_disabled_if_the_mount_that_shows_who_has_only_a_new_name_is_unknown(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.sync("  ada.old: {logins: {people: ada}}\n")
    monkeypatch.setattr(office.empty, "settings", office.empty.settings.model_copy(update={"people_mounts": ("staff",)}))
    with pytest.raises(InvalidInput, match="Vault has no auth method at staff/"):
        office.sync("  ada: {}\n", remove=True)
    assert not office.empty.read("identity/entity/name/ada.old")["disabled"]


def test_a_changed_login_name_moves_the_person_along(office: Office) -> None:
    office.sync("  ada: {groups: [ops]}\n")
    text = "  ada: {groups: [ops], logins: {people: ada.king}}\n"
    assert office.plan(text)["identity/entity-alias/people/ada.king"].outcome is WriteOutcome.CHANGED
    assert office.sync(text)["identity/entity-alias/people/ada.king"].note == "the login of ada, formerly ada"
    assert office.log_in("ada.king") == office.id_of("ada")
    assert office.log_in("ada") != office.id_of("ada")


def test_external_groups_and_their_other_settings_are_kept(office: Office) -> None:
    office.empty.write("identity/group/name/sso", type="external")
    inner = office.empty._shop.admin.write(f"{office.empty.namespace}/identity/group", name="inner").json()["data"]["id"]
    office.empty.write("identity/group/name/ops", type="internal", member_group_ids=[inner], metadata={"owner": "it"})
    steps = office.sync("  ada: {groups: [ops, sso]}\n")
    assert steps["identity/group/name/sso"].note == "an external group: its members come from the auth method"
    ops = office.empty.read("identity/group/name/ops")
    assert (ops["member_group_ids"], ops["metadata"], office.members("ops")) == ([inner], {"owner": "it"}, [office.id_of("ada")])


def test_the_command_exits_2_for_changes_and_for_wrong_input(office: Office, tmp_path: Path) -> None:
    file = str(office.write("  ada: {groups: [ops]}\n"))
    planned = office.empty.command("people", "plan", file)
    assert (planned.exit_code, planned.stdout.splitlines()[-1]) == (2, "`justenough people sync` would write 4 of 4 objects.")
    assert office.empty.command("people", "sync", file).exit_code == 0
    again = office.empty.command("people", "plan", file)
    assert (again.exit_code, again.stdout) == (0, "Nothing that Vault shows would change: 4 objects were compared.\n")

    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("people: {ada: [ops]}")
    for words, said in (
        (("nowhere.yaml",), "nowhere.yaml: 1 problem\n  cannot be read: No such file or directory\n"),
        ((), "people: 1 problem\n  name either a file or a SCIM server (--scim URL --token-file FILE)\n"),
        ((file, "--group", "opps"), "--group: 1 problem\n  nobody is in the group opps\n"),
        ((str(wrong),), "  people.ada: must be a mapping\n"),
    ):
        refused = office.empty.command("people", "sync", *words)
        assert (refused.exit_code, refused.stdout, refused.stderr.endswith(said)) == (2, "", True), refused.stderr


def test_logins_that_cannot_be_made_are_named_before_anything_is_written(office: Office) -> None:
    with pytest.raises(InvalidInput) as refused:
        office.sync("  new: {}\n  ada: {logins: {nowhere: ada}}\n  bob: {}\n  eve: {logins: {people: BOB}}\n")
    assert [str(problem) for problem in refused.value.problems] == [
        "ada.logins.nowhere: Vault has no such auth method: correct it, or enable it first",
        "eve.logins.people: BOB is already the login of bob",
    ]
    office.empty.settings = office.empty.settings.model_copy(update={"people_mounts": ("nobody",)})
    with pytest.raises(InvalidInput, match="Vault has no auth method at nobody/: enable one first, or correct JUSTENOUGH_PEOPLE_MOUNTS"):
        office.sync("  ada: {}\n")
    assert office.empty._shop.admin.list(f"{office.empty.namespace}/identity/entity/name").status_code == 404


def test_a_vault_that_cannot_be_used_gets_one_sentence(office: Office) -> None:
    people = ("people", "plan", str(office.write("  ada: {groups: [ops]}\n")))
    for words, env, said in (
        (people, {"VAULT_TOKEN": "hvs.wrong"}, "The admin token is wrong, has expired or lacks the capabilities"),
        (people, {"VAULT_NAMESPACE": "nowhere"}, "Vault has no namespace 'nowhere'. Correct VAULT_NAMESPACE"),
        (people, {"VAULT_ADDR": "http://127.0.0.1:1"}, "Vault at http://127.0.0.1:1 did not answer ([Errno 111] Connection refused). "),
        (people, {"VAULT_ADDR": "127.0.0.1:8200"}, "missing an 'http://' or 'https://' protocol"),
        (("vault", "plan"), {"VAULT_ADDR": "http://[::1:8200"}, "VAULT_ADDR: http://[::1:8200 is not a valid address"),
        (("vault", "plan"), {"VAULT_CACERT": "/nowhere/ca.pem"}, "VAULT_CACERT: /nowhere/ca.pem has no certificates that can be read"),
        (people, {"VAULT_CACERT": __file__}, "has no certificates that can be read"),
    ):
        done = office.empty.command(*words, **env)
        assert (done.exit_code, done.stdout, "Traceback" in done.stderr) == (1, "", False), done.stderr
        assert said in done.stderr


def test_a_vault_that_takes_connections_and_says_nothing_is_given_up(office: Office) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(VaultNotReady, match=re.escape(f"Vault at {address} did not answer (no answer in time)")):
            plan_people(
                office.empty.settings.model_copy(update={"vault_addr": address}), ReadPeople({}), admin_token=Secret("hvs.x"), remove=False
            )
        assert time.monotonic() - began < 60


async def test_the_certificate_of_an_unknown_authority_is_named(office: Office, tmp_path: Path) -> None:
    authority, contexts = create_authority(tmp_path, "localhost")
    file = str(office.write("  ada: {groups: [ops]}\n"))

    async def plan(address: str, **env: str) -> tuple[int, str]:
        done = await asyncio.to_thread(office.empty.command, "people", "plan", file, VAULT_ADDR=address, **env)
        assert "Traceback" not in done.stderr
        return done.exit_code, done.stderr

    async with serve_tls(urlsplit(office.empty.settings.vault_addr).netloc, contexts["localhost"]) as front:
        port = front.rpartition(":")[2]
        assert (await plan(f"https://localhost:{port}", VAULT_CACERT=str(authority)))[0] == 2
        code, said = await plan(f"https://localhost:{port}")
        assert (code, "CERTIFICATE_VERIFY_FAILED" in said, "VAULT_CACERT" in said) == (1, True, True)
        code, said = await plan(f"https://127.0.0.1:{port}", VAULT_CACERT=str(authority))
        assert (code, "IP address mismatch" in said) == (1, True)
        code, said = await plan(f"http://localhost:{port}")
        assert (code, f"Vault at http://localhost:{port} did not answer" in said) == (1, True)
    code, said = await plan(office.empty.settings.vault_addr.replace("http:", "https:"))
    assert (code, "did not answer ([SSL" in said) == (1, True)
