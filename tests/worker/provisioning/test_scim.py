"""People of a real SCIM server: all of its pages, the errors for a wrong one, and `people sync --scim` from there into Vault."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from justenough.domain.core.errors import InvalidInput, JustEnoughError, RetryLater
from justenough.domain.core.secret import Secret
from tests.support.canned_server import serve_canned_answers
from tests.support.scim_server import TOKEN, ScimServer, serve_scim
from tests.worker.provisioning.provisioned_shop import Emptied
from worker.provisioning import people_source
from worker.provisioning.people_source import fetch_scim, read_scim
from worker.provisioning_commands import read_people_source


@pytest.fixture
def scim() -> Iterator[ScimServer]:
    with serve_scim() as server:
        yield server


def people_of(address: str) -> dict[str, tuple[tuple[str, ...], bool]]:
    people = read_scim(address, fetch_scim(address, Secret(TOKEN))).people
    return {name: (entry.groups, entry.active) for name, entry in people.items()}


def test_all_pages_of_scim_users_and_groups_are_fetched(scim: ScimServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people_source, "PAGE_SIZE", 3)
    ids = [scim.create("User", userName=f"person-{number}", active=number != 5) for number in range(7)]
    for name, members in (("ops", ids[:2]), ("leads", ids[1:2]), ("security", []), ("chiefs", [])):
        scim.create("Group", displayName=name, members=[{"value": member} for member in members])
    people = people_of(scim.address)
    assert sorted(people) == [f"person-{number}" for number in range(7)]
    assert (people["person-0"], people["person-1"], people["person-5"]) == ((("ops",), True), (("leads", "ops"), True), ((), False))


def test_people_outside_the_named_groups_cannot_stop_the_sync_by_their_names(scim: ScimServer, tmp_path: Path) -> None:
    ada, robot = scim.create("User", userName="ada"), scim.create("User", userName="je-robot", active=False)
    guest = scim.create("User", userName="eve_x.example#EXT#@y.example")
    scim.create("Group", displayName="ops", members=[{"value": ada}])
    scim.create("Group", displayName="others", members=[{"value": guest}, {"value": robot}])
    token = tmp_path / "token"
    token.write_text(TOKEN)
    assert read_people_source(None, scim.address, token, ["ops"]).people.keys() == {"ada"}
    with pytest.raises(InvalidInput, match=r"people\.eve_x\.example#EXT#@y\.example: must match the pattern"):
        read_people_source(None, scim.address, token, ["ops", "others"])


def refusal(address: str, token: str = TOKEN) -> str:
    began = time.monotonic()
    with pytest.raises(JustEnoughError) as refused:
        fetch_scim(address, Secret(token))
    assert time.monotonic() - began < 60
    assert token not in str(refused.value)
    return str(refused.value)


def test_a_server_that_is_not_ours_or_does_not_answer_is_named(scim: ScimServer) -> None:
    assert refusal(scim.address, "wrong-token").startswith(f"{scim.address}/Users answered 401: the token in --token-file is wrong")
    assert f"{scim.address}/v9/Users answered 404, not 200: check the address of --scim" in refusal(f"{scim.address}/v9/")
    assert "http://scim.example/ must begin with https://, because the request carries a token" in refusal("http://scim.example/")
    assert "did not answer ([Errno 111] Connection refused)" in refusal("http://127.0.0.1:1")
    assert "did not answer ([SSL" in refusal(scim.address.replace("http:", "https:"))
    assert refusal("https://[::1").startswith("--scim: https://[::1 is not a valid address: ")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "did not answer (no answer in time)" in refusal(f"http://127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize(
    "body, said",
    [
        ({"Resources": []}, "did not answer with a SCIM list response: check the address of --scim"),
        ([], "did not answer with a SCIM list response"),
        (b"<html>", "did not answer with a SCIM list response"),
        (b"[" * 100_000, "did not answer with a SCIM list response"),
        ({"totalResults": 3, "Resources": []}, "reports 3 resources, but returned 0; nothing was changed"),
        ({"totalResults": 10**6, "Resources": [{"userName": "a"}]}, "reports 1,000,000 resources"),
    ],
)
def test_an_answer_that_is_not_a_complete_list_is_refused(body: Any, said: str) -> None:
    with serve_canned_answers() as server:
        server.set_response(200, body)
        assert said in refusal(server.address)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_or_failing_server_is_to_be_asked_later(status: int) -> None:
    with serve_canned_answers() as server:
        server.set_response(status, {})
        with pytest.raises(RetryLater, match=f"/Users answered {status}: the SCIM server is busy or fails; run the command again later"):
            fetch_scim(server.address, Secret(TOKEN))


def test_a_server_whose_users_change_while_they_are_read_is_to_be_read_again(scim: ScimServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people_source, "PAGE_SIZE", 2)
    first, *_ = (scim.create("User", userName=f"person-{number}", active=True) for number in range(3))
    pages = people_source._pages(scim.http, f"{scim.address}/Users")
    next(pages)
    scim.http.delete(f"/Users/{first}").raise_for_status()
    with pytest.raises(RetryLater, match="changed while it was read \\(3 resources, then 2\\): run the command again"):
        next(pages)


@pytest.mark.servers
def test_people_from_scim_are_created_and_disabled_as_scim_says(scim: ScimServer, empty: Emptied, tmp_path: Path) -> None:
    empty.write("sys/auth/people", type="userpass")
    ada, bob, eve = (scim.create("User", userName=name, active=True) for name in ("ada@x.example", "bob", "eve"))
    ops = scim.create("Group", displayName="ops", members=[{"value": ada}, {"value": bob}])
    scim.create("Group", displayName="All Staff", members=[{"value": eve}])
    token = tmp_path / "scim.token"
    token.write_text(f"{TOKEN}\n")
    words = ("--scim", scim.address, "--token-file", str(token), "--group", "ops", "--remove")

    def sync() -> dict[str, bool]:
        done = empty.command("people", "sync", *words)
        assert (done.exit_code, TOKEN in done.stdout + done.stderr) == (0, False), done.stderr
        assert "Left out, because approvals.yaml cannot name them: All Staff." in done.stderr
        names = empty._shop.admin.list(f"{empty.namespace}/identity/entity/name").json()["data"]["keys"]
        return {name: not empty.read(f"identity/entity/name/{name}")["disabled"] for name in names}

    assert sync() == {"ada@x.example": True, "bob": True}
    scim.change(f"/Users/{ada}", active=False)
    scim.change(f"/Groups/{ops}", members=[{"value": eve}])
    assert sync() == {"ada@x.example": False, "bob": False, "eve": True}
    eve_id = empty.read("identity/entity/name/eve")["id"]
    assert empty.read("identity/group/name/ops")["member_entity_ids"] == [eve_id]


def test_a_group_without_members_is_only_refused_if_it_may_be_misspelt(scim: ScimServer, tmp_path: Path) -> None:
    ada = scim.create("User", userName="ada", active=True)
    scim.create("Group", displayName="ops", members=[{"value": ada}])
    scim.create("Group", displayName="leads", members=[])
    scim.create("Group", displayName="All Staff", members=[{"value": ada}])
    token = tmp_path / "token"
    token.write_text(TOKEN)
    assert read_people_source(None, scim.address, token, ["ops", "leads"]).people["ada"].groups == ("ops",)
    for groups, said in (
        (["ops", "laeds"], "nobody is in the group laeds"),
        (["leads"], "nobody is in the group leads"),
        (["ops", "All Staff"], "approvals.yaml cannot name the group All Staff"),
    ):
        with pytest.raises(InvalidInput, match=f"^--group: {said}$"):
            read_people_source(None, scim.address, token, groups)


@pytest.mark.servers
def test_the_last_member_who_leaves_a_group_at_scim_is_taken_out(scim: ScimServer, empty: Emptied, tmp_path: Path) -> None:
    empty.write("sys/auth/people", type="userpass")
    ada, bob = (scim.create("User", userName=name, active=True) for name in ("ada", "bob"))
    scim.create("Group", displayName="ops", members=[{"value": ada}])
    leads = scim.create("Group", displayName="leads", members=[{"value": ada}, {"value": bob}])
    token = tmp_path / "scim.token"
    token.write_text(TOKEN)
    words = ("people", "sync", "--scim", scim.address, "--token-file", str(token), "--group", "ops", "--group", "leads", "--remove")
    assert empty.command(*words).exit_code == 0
    assert empty.read("identity/group/name/leads")["member_entity_ids"]

    scim.change(f"/Groups/{leads}", members=[])
    done = empty.command(*words)
    assert done.exit_code == 0, done.stderr
    assert not empty.read("identity/group/name/leads")["member_entity_ids"]
    assert empty.read("identity/entity/name/bob")["disabled"] is True
    assert empty.read("identity/entity/name/ada")["disabled"] is False


@pytest.mark.servers
def test_a_second_group_of_the_same_name_makes_nobody_a_member(scim: ScimServer, empty: Emptied, tmp_path: Path) -> None:
    empty.write("sys/auth/people", type="userpass")
    ada, eve = (scim.create("User", userName=name, active=True) for name in ("ada", "eve"))
    scim.create("Group", displayName="chiefs", members=[{"value": ada}])
    scim.create("Group", displayName="ops", members=[{"value": ada}])
    token = tmp_path / "scim.token"
    token.write_text(TOKEN)
    words = ("people", "sync", "--scim", scim.address, "--token-file", str(token), "--remove")
    assert empty.command(*words).exit_code == 0
    ada_id = empty.read("identity/entity/name/ada")["id"]

    scim.create("Group", displayName="chiefs", members=[{"value": eve}])
    scim.change(f"/Users/{ada}", active=False)
    done = empty.command(*words)

    assert done.exit_code == 0, done.stderr
    assert "several groups of the SCIM server have this name" in done.stdout
    assert empty.read("identity/group/name/chiefs")["member_entity_ids"] == [ada_id]
    # The others are synced all the same: who has left is disabled, and is in no other group any more.
    assert empty.read("identity/entity/name/ada")["disabled"] is True
    assert not empty.read("identity/group/name/ops")["member_entity_ids"]


def test_an_incomplete_or_ambiguous_source_of_people_is_refused(scim: ScimServer, tmp_path: Path) -> None:
    empty = tmp_path / "scim.token"
    empty.write_text("\n")
    for file, token_file, said in (
        (None, empty, "must contain the SCIM server's token, and nothing else"),
        (None, tmp_path / "none", "none: cannot be read: No such file or directory"),
        (None, None, "--scim and --token-file belong together"),
        (empty, empty, "name either a file or a SCIM server"),
    ):
        with pytest.raises(InvalidInput, match=re.escape(said)):
            read_people_source(file, scim.address, token_file, ())
