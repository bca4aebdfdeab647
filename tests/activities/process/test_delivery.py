"""A credential becomes exactly the variables and the file that its request names."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from activities.delivery.delivery import MAX_NESTED_TEXTS, Delivered, UndeliverableField, access_summary, build_delivery, secret_texts
from activities.issuing.results import ToolAccess
from justenough.adapters.vault.client import to_issued_secret
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.spec import Access, Delivery, FileDelivery, JobSpec, RunSpec
from justenough.domain.jobs.states import Action, Revocable
from justenough.domain.jobs.tool_bounds import Bounds

FIELDS = {"username": Secret("v-token-orders"), "password": Secret("hunter22")}
T0 = datetime(2026, 11, 24, 12, tzinfo=UTC)
CONNECT = {"host": "127.0.0.1", "port": "5432"}


def access(**deliver: object) -> Access:
    return Access(resource="orders-db", action=Action.READ, ttl=600, reason="test", deliver=Delivery.model_validate(deliver))


def test_variables_come_from_credential_fields_and_from_the_catalogs_connect_values() -> None:
    given = build_delivery(access(env={"PGUSER": "username", "PGPASSWORD": "password", "PGHOST": "host"}), FIELDS, CONNECT)
    assert {name: value.reveal() for name, value in given.env.items()} == {
        "PGUSER": "v-token-orders",
        "PGPASSWORD": "hunter22",
        "PGHOST": "127.0.0.1",
    }
    assert not given.files


def test_a_file_holds_the_whole_credential() -> None:
    given = build_delivery(access(file=FileDelivery(path="db.json")), FIELDS, CONNECT)
    assert json.loads(given.files["db.json"].reveal()) == {
        "host": "127.0.0.1",
        "port": "5432",
        "username": "v-token-orders",
        "password": "hunter22",
    }


WHOLE = {**FIELDS, "dbname": Secret("shop")}


def test_a_password_file_has_libpqs_format_and_a_variable_names_it() -> None:
    odd = {**WHOLE, "password": Secret("a:b\\c")}
    given = build_delivery(access(pgpass=FileDelivery(path="pgpass")), odd, CONNECT)
    assert given.files["pgpass"].reveal() == "127.0.0.1:5432:shop:v-token-orders:a\\:b\\\\c\n"
    assert given.paths == {"PGPASSFILE": ("pgpass",)}
    assert not given.env


def test_two_credentials_share_a_password_file() -> None:
    first, second = (
        build_delivery(access(pgpass=FileDelivery(path="pgpass")), {**WHOLE, "username": Secret(name)}, CONNECT) for name in "ab"
    )
    lines = first.merge(second).files["pgpass"].reveal().splitlines()
    assert lines == ["127.0.0.1:5432:shop:a:hunter22", "127.0.0.1:5432:shop:b:hunter22"]


def test_a_credential_of_no_database_and_a_value_of_two_lines_make_no_password_file() -> None:
    with pytest.raises(
        UndeliverableField, match=r"orders-db:read has no field dbname \(deliver.pgpass\); it has host, password, port, username"
    ):
        build_delivery(access(pgpass=FileDelivery(path="pgpass")), FIELDS, CONNECT)
    with pytest.raises(UndeliverableField) as refused:
        build_delivery(access(pgpass=FileDelivery(path="pgpass")), {**WHOLE, "password": Secret("one\ntwo")}, CONNECT)
    why = "deliver.pgpass: a password file cannot contain a value with line breaks; use deliver.file"
    assert str(refused.value) == f"orders-db:read: {why}"


CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
CLUSTER = {"server": "https://k8s.example:6443", "ca": CA}
ACCOUNT = {"service_account_token": Secret("ey.J.0"), "service_account_namespace": Secret("on")}
SAID = {"path": "kubeconfig", "token": "service_account_token", "ca": "ca", "namespace": "service_account_namespace"}


def test_a_kubeconfig_has_one_complete_context_and_a_variable_names_it() -> None:
    given = build_delivery(access(kubeconfig=SAID), ACCOUNT, CLUSTER)
    config = yaml.safe_load(given.files["kubeconfig"].reveal())
    name = config["current-context"]
    assert (config["apiVersion"], config["kind"], name) == ("v1", "Config", "orders-db-read")
    assert config["contexts"] == [{"name": name, "context": {"cluster": name, "user": name, "namespace": "on"}}]
    assert config["users"] == [{"name": name, "user": {"token": "ey.J.0"}}]
    assert config["clusters"][0]["name"] == name
    cluster = config["clusters"][0]["cluster"]
    assert (cluster["server"], base64.b64decode(cluster["certificate-authority-data"]).decode()) == (CLUSTER["server"], CA)
    assert given.paths == {"KUBECONFIG": ("kubeconfig",)}
    assert not given.env


def test_a_kubeconfig_without_a_ca_names_only_the_server() -> None:
    given = build_delivery(access(kubeconfig={"path": "k"}), {"token": Secret("t0ken")}, {"server": CLUSTER["server"]})
    assert yaml.safe_load(given.files["k"].reveal())["clusters"][0]["cluster"] == {"server": CLUSTER["server"]}


def test_two_kubeconfigs_are_two_files_that_one_variable_names() -> None:
    first, second = (build_delivery(access(kubeconfig={**SAID, "path": path}), ACCOUNT, CLUSTER) for path in ("one", "two"))
    both = first.merge(second)
    assert (set(both.files), both.paths) == ({"one", "two"}, {"KUBECONFIG": ("one", "two")})


@pytest.mark.parametrize(
    "said, connect, problem",
    [
        (
            {"token": "tokn"},
            {},
            "orders-db:read has no field tokn (deliver.kubeconfig.token); it has ca, server, service_account_namespace,",
        ),
        ({"server": "url"}, {}, "has no field url (deliver.kubeconfig.server)"),
        ({"namespace": "ns", "ca": "ka"}, {}, "has no field ka (deliver.kubeconfig.ca), ns (deliver.kubeconfig.namespace)"),
        ({}, {"server": "http://k8s.example"}, "orders-db:read: deliver.kubeconfig.server: server is not an https:// address"),
        ({}, {"ca": "MIIB"}, "orders-db:read: deliver.kubeconfig.ca: ca is not a PEM certificate"),
    ],
)
def test_a_kubeconfig_that_cannot_be_built_is_refused_by_its_place_in_the_spec(
    said: dict[str, str], connect: dict[str, str], problem: str
) -> None:
    with pytest.raises(UndeliverableField) as refused:
        build_delivery(access(kubeconfig={**SAID, **said}), ACCOUNT, {**CLUSTER, **connect})
    assert problem in str(refused.value)
    assert "ey.J.0" not in str(refused.value)


def test_nothing_is_delivered_that_the_spec_does_not_ask_for() -> None:
    assert build_delivery(access(), FIELDS, CONNECT) == Delivered()


def test_a_missing_field_is_named_with_the_existing_ones_and_without_their_values() -> None:
    with pytest.raises(UndeliverableField) as refused:
        build_delivery(access(env={"A": "token", "B": "passwort"}), FIELDS, CONNECT)
    assert (
        str(refused.value)
        == "orders-db:read has no field passwort (deliver.env.B), token (deliver.env.A); it has host, password, port, username"
    )


@pytest.mark.parametrize("value, what", [("nul\0inside", "with NUL"), ("x" * 100_001, "of more than 100,000 bytes")])
def test_a_value_that_cannot_be_a_variable_is_refused_without_being_shown(value: str, what: str) -> None:
    with pytest.raises(UndeliverableField) as refused:
        build_delivery(access(env={"A": "password"}), {"password": Secret(value)}, {})
    why = f"deliver.env.A: a value {what} cannot be an environment variable; use deliver.file"
    assert str(refused.value) == f"orders-db:read: {why}"


def test_issued_fields_take_precedence_over_values_of_the_catalog() -> None:
    given = build_delivery(access(env={"A": "host"}), {"host": Secret("issued")}, CONNECT)
    assert given.env["A"].reveal() == "issued"


def test_every_delivered_field_but_the_user_name_is_secret() -> None:
    assert secret_texts({**FIELDS, "token": Secret("t0ken")}) == ("hunter22", "t0ken")


def test_the_texts_nested_in_a_secret_are_secret_too() -> None:
    kv = {"login": {"username": "app", "password": "hunter22", "older": ["hunter21"], "port": 5432}, "file": '{"key":\n"k"}'}
    fields = to_issued_secret("kv/data/app", {"data": {"data": kv, "metadata": {}}}).fields
    assert set(secret_texts(fields)) == {json.dumps(kv["login"]), kv["file"], "hunter22", "hunter21"}
    assert len(secret_texts({"many": Secret(json.dumps([str(number) for number in range(1_000)]))})) == 1 + MAX_NESTED_TEXTS
    assert secret_texts({"odd": Secret("[" * 100_000), "word": Secret("null")}) == ("[" * 100_000, "null")


def test_two_credentials_are_delivered_together() -> None:
    both = Delivered({"A": Secret("1")}, {"a": Secret("1")}).merge(Delivered({"B": Secret("2")}))
    assert set(both.env) == {"A", "B"}
    assert set(both.files) == {"a"}


def test_a_job_learns_what_it_was_granted_of_each_access_and_through_which_tools() -> None:
    bounds = Bounds(calls=2).with_default()
    through_tools = Access(resource="refunds-db", action=Action.WRITE, ttl=60, reason="test", tools={"refund": bounds, "close": bounds})
    refused = Access(resource="mail", action=Action.READ, ttl=60, reason="test", optional=True)
    spec = JobSpec(name="test", task="test", environment="prod", run=RunSpec(command=("true",)), access=(through_tools, refused, access()))
    narrowed = through_tools.model_copy(update={"action": Action.READ, "tools": {"refund": bounds}})
    issued = CredentialHandle(
        id="c-test-3.2",
        request_id="r-test-3",
        resource="orders-db",
        action=Action.READ,
        lease_id=None,
        accessor=None,
        issued_at=T0,
        expires_at=T0 + timedelta(minutes=5),
        revocable=Revocable.NOW,
    )
    told = access_summary(spec, [issued], [ToolAccess("r-test-1", narrowed)]).env["JUSTENOUGH_ACCESS"].reveal()
    granted = {"action": "read", "tools": {"refund": bounds.model_dump(mode="json")}}
    credential = {"credential": "c-test-3.2", "action": "read", "expires_at": "2026-11-24T12:05:00+00:00"}
    assert json.loads(told) == [
        {"resource": "refunds-db", "action": "write", "ttl": 60, "granted": granted},
        {"resource": "mail", "action": "read", "ttl": 60, "granted": None},
        {"resource": "orders-db", "action": "read", "ttl": 600, "granted": credential},
    ]
    assert access_summary(spec.model_copy(update={"access": ()}), []) == Delivered()
