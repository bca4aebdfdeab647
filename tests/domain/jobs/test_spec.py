"""The job spec: what is accepted, what is refused and where, and that params never become more than a value."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.core.base_model import Model
from justenough.domain.core.errors import InvalidInput
from justenough.domain.core.untrusted_yaml import MAX_KEY_HINTS
from justenough.domain.jobs.spec import OTHER_KEYS, Access, JobSpec, ResourceLimits, RunSpec, at_start, checked_spec, read_spec
from justenough.domain.jobs.states import Action
from tests.support.domain_samples import access, raw_spec, spec

FULL_EXAMPLE = """
name: refund-triage
task: Refund ticket {ticket}
agent: {name: refund-agent, version: "1.4", model: scripted, owner: support}
environment: prod
data_scope: {tenant: acme}
labels: {team: support}
params: {ticket: "4711"}
run:
  command: [python, triage.py, --ticket, "{ticket}"]
  workdir: .
  timeout: 15m
  env: {MODE: dry-run, TICKET: "T-{ticket}"}
  network: host
access:
  - resource: orders-db
    action: read
    ttl: 10m
    reason: Look up the order behind ticket {ticket}
    deliver: {env: {PGUSER: username, PGPASSWORD: password}}
"""


def paths(raw: Any, params: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        checked_spec(raw, params)
    return [problem.path for problem in caught.value.problems]


def test_an_example_with_most_keys_is_read_with_its_params_filled_in() -> None:
    read = checked_spec(read_spec(FULL_EXAMPLE))
    assert read.run.command == ("python", "triage.py", "--ticket", "4711")
    assert (read.task, read.run.env["TICKET"]) == ("Refund ticket 4711", "T-4711")
    assert read.access[0].reason == "Look up the order behind ticket 4711"
    assert (read.run.timeout, read.access[0].ttl, read.access[0].action) == (900, 600, Action.READ)


def test_given_params_override_the_defaults() -> None:
    assert checked_spec(read_spec(FULL_EXAMPLE), {"ticket": "4712"}).run.command[-1] == "4712"


def test_a_small_spec_has_the_documented_defaults() -> None:
    small = spec(access=[access()])
    assert (small.run.timeout, small.run.network, small.run.env, small.agent) == (900, "host", {}, None)
    assert (small.access[0].at, small.access[0].optional, small.access[0].deliver.env) == ("start", False, {})


@pytest.mark.parametrize(
    "changes, path",
    [
        ({"name": "Has Caps"}, "name"),
        ({"name": "x" * 64}, "name"),
        ({"name": "trailing\n"}, "name"),
        ({"task": ""}, "task"),
        ({"task": 7}, "task"),
        ({"environment": "../prod"}, "environment"),
        ({"nmae": "typo"}, "nmae"),
        ({"agent": {"name": "a", "versoin": "1"}}, "agent.versoin"),
        ({"agent": {"version": "1"}}, "agent.name"),
        ({"run": {"command": []}}, "run.command"),
        ({"run": {"command": "python x.py"}}, "run.command"),
        ({"run": {"command": ["x", 1]}}, "run.command[1]"),
        ({"run": {"timeout": "15 minutes"}}, "run.timeout"),
        ({"run": {"timeout": "8d"}}, "run.timeout"),
        ({"run": {"timeout": -1}}, "run.timeout"),
        ({"run": {"timeout": True}}, "run.timeout"),
        ({"run": {"network": "bridge"}}, "run.network"),
        ({"run": {"limits": {"cpu": "29d"}}}, "run.limits.cpu"),
        ({"run": {"limits": {"cpu": "10 min"}}}, "run.limits.cpu"),
        ({"run": {"limits": {"memory": "1GB"}}}, "run.limits.memory"),
        ({"run": {"limits": {"memory": "1MiB"}}}, "run.limits.memory"),
        ({"run": {"limits": {"memory": "65GiB"}}}, "run.limits.memory"),
        ({"run": {"limits": {"processes": 0}}}, "run.limits.processes"),
        ({"run": {"limits": {"processes": "256"}}}, "run.limits.processes"),
        ({"run": {"limits": {"processes": True}}}, "run.limits.processes"),
        ({"run": {"limits": {"processes": 4097}}}, "run.limits.processes"),
        ({"run": {"limits": {"file_size": "65GiB"}}}, "run.limits.file_size"),
        ({"run": {"limits": {"open_files": 15}}}, "run.limits.open_files"),
        ({"run": {"limits": {"open_files": 65_537}}}, "run.limits.open_files"),
        ({"run": {"limits": {"ram": "1GiB"}}}, "run.limits.ram"),
        ({"run": {"limits": None}}, "run.limits"),
        ({"run": {"python": "python3"}}, "run.python"),
        ({"run": {"env": {"A-B": "x"}}}, "run.env.A-B"),
        ({"run": {"env": {"LD_PRELOAD": "/x.so"}}}, "run.env"),
        ({"run": {"env": {"JUSTENOUGH_BROKER": "x"}}}, "run.env"),
        ({"run": {"env": {"PATH": "."}}}, "run.env"),
        ({"access": [access(action="delete")]}, "access[0].action"),
        ({"access": [access(), access(ttl="25h")]}, "access[1].ttl"),
        ({"access": [access(ttl="0s")]}, "access[0].ttl"),
        ({"access": [access(reason="")]}, "access[0].reason"),
        ({"access": [access(resource="orders_db")]}, "access[0].resource"),
        ({"access": [access(at="later")]}, "access[0].at"),
        ({"access": [access(at="request", deliver={"env": {"A": "a"}})]}, "access[0]"),
        ({"access": [access(deliver={"file": {"path": "../x"}})]}, "access[0].deliver.file.path"),
        ({"access": [access(deliver={"file": {"path": ".."}})]}, "access[0].deliver.file.path"),
        ({"access": [access(deliver={"env": {"LD_LIBRARY_PATH": "x"}})]}, "access[0].deliver.env"),
        ({"access": [access(deliver={"file": {"path": "broker.sock"}})]}, "access[0].deliver.file.path"),
        ({"access": [access(at="request", deliver={"pgpass": {"path": "pgpass"}})]}, "access[0]"),
        ({"access": [access()] * 33}, "access"),
        ({"access": {"resource": "x"}}, "access"),
        ({"data_scope": {"tenant": "a/b"}}, "data_scope.tenant"),
        ({"data_scope": {"tenant": ".."}}, "data_scope"),
        ({"data_scope": {"Tenant": "a"}}, "data_scope.Tenant"),
        ({"labels": {"team": "a b"}}, "labels.team"),
        ({"params": {"Ticket": "1"}}, "params.Ticket"),
        ({"params": {"ticket": 4711}}, "params.ticket"),
    ],
)
def test_each_mistake_in_a_spec_is_refused_by_its_path(changes: dict[str, Any], path: str) -> None:
    assert paths(raw_spec(**changes)) == [path]


def test_limits_have_the_documented_defaults_and_can_be_set_individually() -> None:
    assert spec().run.limits == ResourceLimits(cpu=600, memory=2**30, processes=256, file_size=2**30, open_files=4096)
    given = spec(run={"limits": {"cpu": "2h", "memory": "512MiB"}}).run.limits
    assert given == ResourceLimits(cpu=7200, memory=2**29)


@pytest.mark.parametrize(
    "limits, said",
    [
        ({"cpu": "29d"}, "must be from 1s to 28d"),
        ({"cpu": "fast"}, "write a duration like 30s, 10m, 1h or 2d"),
        ({"memory": "1KiB"}, "must be from 16MiB to 64GiB"),
        ({"memory": "1GB"}, "write a size like 64KiB, 512MiB or 1GiB"),
        ({"processes": 5000}, "must be from 1 to 4096"),
        ({"file_size": "65GiB"}, "must be from 1B to 64GiB"),
        ({"open_files": 1}, "must be from 16 to 65536"),
    ],
)
def test_a_wrong_limit_is_refused_with_what_is_accepted(limits: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        spec(run={"limits": limits})
    assert [problem.message for problem in caught.value.problems] == [said]


def test_every_error_is_listed_at_once() -> None:
    raw = raw_spec(name="X", extra=1, access=[access(ttl="x"), access(action="y")], run={"network": "z"})
    assert paths(raw) == ["name", "run.network", "access[0].ttl", "access[1].action", "extra"]


def test_an_item_requested_at_runtime_cannot_be_delivered_at_the_start() -> None:
    assert spec(access=[access(at="request")]).access[0].at == "request"
    with pytest.raises(InvalidInput, match="comes through the broker"):
        spec(access=[access(at="request", deliver={"file": {"path": "db.json"}})])


def test_an_item_requested_at_the_start_keeps_its_number_in_the_spec() -> None:
    found = spec(access=[access(at="request"), access(), access(at="request"), access()])
    assert [number for number, _ in at_start(found)] == [2, 4]


@pytest.mark.parametrize("raw", [None, [], "text", 7, {}, {"run": None}])
def test_a_text_that_is_not_a_spec_is_refused(raw: Any) -> None:
    assert paths(raw)


@pytest.mark.parametrize("text", ["", "- a", "text", "7"])
def test_yaml_that_is_not_a_mapping_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="must be a mapping"):
        read_spec(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"access": [access(deliver={"env": {"TOKEN": "a"}}), access(action="write", deliver={"env": {"TOKEN": "b"}})]},
        {"access": [access(deliver={"env": {"MODE": "a"}})], "run": {"env": {"MODE": "x"}}},
        {"access": [access(deliver={"file": {"path": "a"}}), access(action="write", deliver={"file": {"path": "a"}})]},
    ],
)
def test_a_variable_or_file_that_is_delivered_twice_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="delivered more than once"):
        spec(**changes)


def test_undeclared_params_and_placeholders_are_refused_together() -> None:
    raw = raw_spec(task="{nobody}", params={"ticket": "1"}, run={"command": ["x", "{ticket}", "{nothing}"]})
    with pytest.raises(InvalidInput) as refused:
        checked_spec(raw, {"tikcet": "2", "ticket": "{x}"})
    allowed = "only the letters a to z and A to Z, digits, spaces and . _ @ : + = - are accepted"
    assert [str(problem) for problem in refused.value.problems] == [
        "params.tikcet: the spec declares no such parameter",
        f"params.ticket: {allowed}, at most 256 characters, without a leading dash",
        "task: {nobody} is not a declared parameter",
        "run.command[2]: {nothing} is not a declared parameter",
    ]


def test_braces_that_are_not_placeholders_stay_as_they_are() -> None:
    command = ["jq", '{"a": 1}', "${HOME}", "{}", "{A}"]
    raw = raw_spec(run={"command": command})
    assert list(checked_spec(raw).run.command) == command


@pytest.mark.parametrize(
    "value",
    ["", " ".join("x" * 300), "-rf", "--all", "a/b", "a,b", "a{b", "a}b", "a\nb", "a;b", "$(id)", "a'b", 'a"b', "é", "a\0b", "4711\n"],
)
def test_dangerous_params_are_refused_as_default_and_as_given(value: str) -> None:
    assert paths(raw_spec(params={"ticket": value})) != []
    assert paths(raw_spec(params={"ticket": "1"}), {"ticket": value}) == ["params.ticket"]


def test_params_do_not_make_a_text_longer_than_a_spec_may_write_it() -> None:
    texts: dict[str, Any] = {
        "task": "{a}" * 5,
        "run": {"command": ["x", "{a}" * 40], "env": {"LIST": "{a}" * 40}},
        "access": [access(reason="{a}" * 5)],
    }
    raw = raw_spec(params={"a": "1"}, **texts)
    assert len(checked_spec(raw, {"a": "x" * 200}).task) == 1000

    assert paths(raw, {"a": "x" * 205}) == ["task", "run.command[1]", "run.env.LIST", "access[0].reason"]

    with pytest.raises(InvalidInput, match="task: has 1025 characters with its params filled in; at most 1000 are accepted"):
        checked_spec(raw, {"a": "x" * 205})


@pytest.mark.parametrize("value", ["4711", "-5", "-0.5", "ops@example.com", "a b", "2026-01-31T09:30:00Z", "a+b=c", "x" * 256])
def test_ordinary_params_are_accepted(value: str) -> None:
    assert spec(params={"ticket": value}).params["ticket"] == value


@given(st.text(max_size=40))
def test_no_param_value_leaves_its_argument(value: str) -> None:
    raw = raw_spec(params={"ticket": "1"}, run={"command": ["x", "--ticket={ticket}", "{ticket}"]})
    try:
        read = checked_spec(raw, {"ticket": value})
    except InvalidInput:
        return
    assert read.run.command == ("x", f"--ticket={value}", value)
    assert re.fullmatch(r"[A-Za-z0-9._@:+= -]{1,256}", value)
    assert not value.startswith("-") or re.fullmatch(r"-[0-9.]+", value)


@given(st.text(max_size=70) | st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True))
def test_a_data_scope_cannot_leave_its_path_segment(value: str) -> None:
    try:
        read = spec(data_scope={"tenant": value})
    except InvalidInput:
        return
    assert read.data_scope["tenant"] == value
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value)
    assert value.strip(".")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "run", "access", "command", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values, st.sampled_from(["name", "task", "agent", "environment", "data_scope", "labels", "params", "run", "access"]))
def test_no_value_raises_anything_but_invalid_input(value: Any, key: str) -> None:
    for raw in (value, {**raw_spec(), key: value}):
        try:
            checked_spec(raw)
        except InvalidInput as error:
            assert error.problems  # noqa: PT017 - either answer is right; only another exception is wrong


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        spec().name = "other"  # type: ignore[misc] # the point of the test


@pytest.mark.parametrize(
    "ways, env, twice",
    [
        (({"pgpass": {"path": "a"}}, {"pgpass": {"path": "a"}}), {}, ""),
        (({"pgpass": {"path": "a"}}, {"pgpass": {"path": "b"}}), {}, "PGPASSFILE"),
        (({"pgpass": {"path": "a"}}, {"file": {"path": "a"}}), {}, "a"),
        (({"pgpass": {"path": "a"}},), {"PGPASSFILE": "mine"}, "PGPASSFILE"),
        (({"file": {"path": "a"}},), {"PGPASSFILE": "/run/justenough/a"}, ""),
        (({"kubeconfig": {"path": "a"}}, {"kubeconfig": {"path": "b"}}), {}, ""),
        (({"kubeconfig": {"path": "a"}}, {"kubeconfig": {"path": "a"}}), {}, "a"),
        (({"kubeconfig": {"path": "a"}}, {"pgpass": {"path": "a"}}), {}, "a"),
        (({"kubeconfig": {"path": "a"}},), {"KUBECONFIG": "mine"}, "KUBECONFIG"),
        (({"kubeconfig": {"path": "a"}}, {"env": {"KUBECONFIG": "token"}}), {}, "KUBECONFIG"),
    ],
)
def test_variables_for_libpq_and_kubernetes_that_are_delivered_twice_are_refused(
    ways: tuple[dict[str, Any], ...], env: dict[str, str], twice: str
) -> None:
    raw = raw_spec(access=[access(deliver=way) for way in ways], run={"command": ["true"], "env": env})
    if not twice:
        checked_spec(raw)
        return
    with pytest.raises(InvalidInput, match=f"delivered more than once: {twice}"):
        checked_spec(raw)


@pytest.mark.parametrize(
    "said, problem",
    [
        ({"path": "k", "tokn": "token"}, "access[0].deliver.kubeconfig.tokn: unknown key; did you mean 'token'?"),
        ({"token": "token"}, "access[0].deliver.kubeconfig.path: required"),
        ({"path": "k", "server": "https://k8s.example"}, "access[0].deliver.kubeconfig.server"),
        ({"path": "k", "ca": ["a"]}, "access[0].deliver.kubeconfig.ca"),
        ({"path": "../k"}, "access[0].deliver.kubeconfig.path"),
        ({"path": "broker.sock"}, "access[0].deliver.kubeconfig.path: broker.sock is the broker's"),
    ],
)
def test_a_wrong_kubeconfig_is_refused_by_its_path(said: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        checked_spec(raw_spec(access=[access(deliver={"kubeconfig": said})]))
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"run": {"comand": ["true"]}}, "run.comand: unknown key; did you mean 'command'?"),
        ({"acess": []}, "acess: unknown key; did you mean 'access'?"),
        ({"access": [access(resorce="x")]}, "access[0].resorce: unknown key; did you mean 'resource'?"),
        ({"access": [access(tools={"pay": {"argument": {}}})]}, "access[0].tools.pay.argument: unknown key; did you mean 'arguments'?"),
        # A tool that is named like a field.
        ({"access": [access(tools={"calls": {"argument": {}}})]}, "access[0].tools.calls.argument: unknown key; did you mean 'arguments'?"),
        *(({key: []}, f"{key}: unknown key; did you mean 'access'?") for key in ("requests", "secrets", "permissions", "approvals")),
        *(({key: 1}, f"{key}: unknown key; did you mean 'run.{key}'?") for key in ("timeout", "env", "command")),
        ({"cmd": "x"}, "cmd: unknown key; did you mean 'run.command'?"),
        ({"access": [access(duration="5m")]}, "access[0].duration: unknown key; did you mean 'ttl'?"),
        ({"zzz": 1}, "zzz: unknown key"),
        ({"run": {"command": ["true"], "acces": 1}}, "run.acces: unknown key"),
    ],
)
def test_an_unknown_key_is_reported_with_a_similar_key_of_the_same_mapping(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        checked_spec(raw_spec(**changes))
    assert problem in [str(found) for found in refused.value.problems]


def test_a_flood_of_unknown_keys_is_refused_without_a_search_for_each() -> None:
    with pytest.raises(InvalidInput) as refused:
        checked_spec(raw_spec(**{f"acces{number}": 1 for number in range(1000)}))
    assert sum("did you mean" in str(found) for found in refused.value.problems) == MAX_KEY_HINTS


def test_a_delivery_option_that_is_not_used_is_not_part_of_the_digest() -> None:
    plain, other = (spec(access=[access(deliver=way)]).access[0].deliver for way in ({}, {"pgpass": {"path": "a"}}))
    assert plain.model_dump(mode="json") == {"env": {}, "file": None}
    assert other.model_dump(mode="json") == {"env": {}, "file": None, "pgpass": {"path": "a"}}


@pytest.mark.parametrize("wrong, meant", sorted(OTHER_KEYS.items()))
def test_every_other_key_leads_from_an_unknown_key_to_a_known_one(wrong: str, meant: str) -> None:
    models: dict[str, type[Model]] = {"": JobSpec, "run": RunSpec, "access": Access}
    place, _, key = wrong.rpartition(".")
    inner, _, name = meant.rpartition(".")
    assert key not in models[place].model_fields
    assert name in models[inner or place].model_fields
