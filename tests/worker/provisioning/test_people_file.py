"""Files of people: what is refused, with its place; and what SCIM's JSON means."""

from __future__ import annotations

import json
from typing import Any

import pytest

from justenough.domain.core.errors import InvalidInput
from worker.provisioning.people_source import ReadPeople, read_people


@pytest.mark.parametrize(
    "text, said",
    [
        ("people: {}", "people: must name at least one person"),
        ("persons: {ada: {}}", "persons: unknown key"),
        ("[ada]", "must be a mapping"),
        ("people: {ada: {group: [ops]}}", "people.ada.group: unknown key"),
        ("people: {ada: {groups: [Support Leads]}}", "people.ada.groups[0]: must match the pattern"),
        ("people: {a/b: {}}", "people.a/b: must match the pattern"),
        ("people: {je-console: {}}", "people: je-console: names that begin with je- are the installation's own"),
        ("people: {ada: {}, Ada: {}}", "people: ada and Ada are the same name to Vault"),
        ("people: {ada: {}, ada: {}}", "line 1, column 19: duplicate key 'ada'"),
        ("people: {ada: {active: maybe}}", "people.ada.active: must be true or false"),
        ('people: {ada: {logins: {people: "a\\nb"}}}', "people.ada.logins.people: must match the pattern"),
        ("people: [", "line 1, column 10"),
    ],
)
def test_each_mistake_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_people("people.yaml", text.encode())
    assert any(str(problem).startswith(said) for problem in refused.value.problems), refused.value


def test_a_file_may_be_json() -> None:
    (ada,) = read_people("people.json", b'{"people": {"ada": {"groups": ["ops"], "active": false}}}').people.values()
    assert (ada.groups, ada.active, ada.logins) == (("ops",), False, {})


def user(name: str, number: str, *groups: str, **more: Any) -> dict[str, Any]:
    return {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "id": number,
        "userName": name,
        "groups": [{"value": f"g-{group}", "display": group} for group in groups],
        **more,
    }


def group(name: str, *members: str) -> dict[str, Any]:
    schema = "urn:ietf:params:scim:schemas:core:2.0:Group"
    return {"schemas": [schema], "id": f"g-{name}", "displayName": name, "members": [{"value": member} for member in members]}


def answer(*resources: dict[str, Any], total: Any = None) -> dict[str, Any]:
    schema = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
    return {"schemas": [schema], "totalResults": len(resources) if total is None else total, "Resources": list(resources)}


def read(value: object) -> ReadPeople:
    return read_people("scim.json", json.dumps(value).encode())


def test_scim_users_are_in_the_groups_that_either_side_names_and_in_those_around_them() -> None:
    read_in = read(
        [
            answer(user("ada@x.example", "1", "ops"), user("bob", "2", active=False), user("cid", "3", title="chief")),
            answer(
                group("leads", "3"), group("staff", "g-leads", "1", "g-everyone"), group("everyone", "g-staff"), group("All Staff", "1")
            ),
        ]
    )
    assert {name: (entry.groups, entry.active) for name, entry in read_in.people.items()} == {
        "ada@x.example": (("everyone", "ops", "staff"), True),
        "bob": ((), False),
        "cid": (("everyone", "leads", "staff"), True),
    }
    assert read_in.ignored_groups == ("All Staff",)


def test_a_scim_user_is_in_all_groups_that_the_user_names_without_their_ids() -> None:
    ada = {**user("ada", "1"), "groups": [{"display": "ops"}, {"display": "chiefs"}, {"value": "g-leads"}]}
    assert read(answer(ada, group("leads"))).people["ada"].groups == ("chiefs", "leads", "ops")


def test_a_name_is_ambiguous_if_groups_with_several_ids_have_it() -> None:
    second = {**group("ops", "2"), "id": "g-other"}
    without_ids = {**user("bob", "2"), "groups": [{"display": "ops"}]}
    assert read(answer(user("ada", "1", "ops"), without_ids, group("ops", "1"))).ambiguous_groups == ()
    assert read(answer(user("ada", "1", "ops"), group("ops", "1"), second)).only(("ops",)).ambiguous_groups == ("ops",)
    assert read(answer(user("ada", "1", "ops"), second)).ambiguous_groups == ("ops",)


def test_the_option_group_keeps_only_its_members_and_inactive_people() -> None:
    people = (
        read(answer(user("ada", "1", "ops", "all"), user("bob", "2", "all"), user("eve", "3", "ops", active=False))).only(("ops",)).people
    )
    assert {name: (entry.groups, entry.active) for name, entry in people.items()} == {"ada": (("ops",), True), "eve": (("ops",), False)}


@pytest.mark.parametrize(
    "value, said",
    [
        (answer(user("ada", "1"), total=250), "totalResults: has 1 of 250 resources: save all pages, as a JSON list"),
        ([answer(user("ada", "1")), answer(group("ops"), total=2)], "totalResults: has 1 of 2 resources"),
        (answer(user("ada", "1"), user("ada", "2")), "lists the user ada more than once"),
        (answer(user("ada lovelace", "1")), "people.ada lovelace: must match the pattern"),
        (answer(user("ada", "1", active="perhaps")), "active: must be true or false"),
        (answer(group("ops")), "people: must name at least one person"),
        ({**answer(), "Resources": "none"}, "Resources: must be a list of objects"),
        (answer(user("ada", "1"), total="many"), "totalResults: must be a number"),
        (answer(user("ada", "1"), total=[1]), "totalResults: must be a number"),
        (answer(user("ada", "1"), total=float("inf")), "totalResults: must be a number"),
        (["urn:ietf:params:scim:x"], "SCIM's JSON must be an object, or a list of objects"),
    ],
)
def test_scim_that_is_incomplete_or_wrong_is_refused(value: object, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(value)
    assert any(str(problem).startswith(said) for problem in refused.value.problems), refused.value


def test_pages_of_scim_are_put_together() -> None:
    assert set(read([answer(user("ada", "1"), total=2), answer(user("bob", "2"), total=2)]).people) == {"ada", "bob"}


@pytest.mark.parametrize("rest", [b"", b"," + b"[" * 100_000], ids=["cut off", "nested too deeply"])
def test_broken_scim_is_refused_with_its_line(rest: bytes) -> None:
    with pytest.raises(InvalidInput, match="not valid JSON: "):
        read_people("scim.json", b'{"schemas": ["urn:ietf:params:scim:x"' + rest)
