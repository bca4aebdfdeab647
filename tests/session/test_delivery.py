"""A credential becomes exactly the variables and the file that its request names."""

import json

import pytest

from activities.session.delivery import Delivered, UndeliverableField, delivered, secrets_of
from justenough.access import Action
from justenough.secret import Secret
from justenough.spec import Access, Delivery, FileDelivery

FIELDS = {"username": Secret("v-token-orders"), "password": Secret("hunter22")}
CONNECT = {"host": "127.0.0.1", "port": "5432"}


def access(**deliver: object) -> Access:
    return Access(resource="orders-db", action=Action.READ, ttl=600, reason="test", deliver=Delivery.model_validate(deliver))


def test_variables_come_from_fields_and_from_what_the_catalog_says_of_connecting() -> None:
    given = delivered(access(env={"PGUSER": "username", "PGPASSWORD": "password", "PGHOST": "host"}), FIELDS, CONNECT)
    assert {name: value.reveal() for name, value in given.env.items()} == {
        "PGUSER": "v-token-orders",
        "PGPASSWORD": "hunter22",
        "PGHOST": "127.0.0.1",
    }
    assert not given.files


def test_a_file_holds_the_whole_credential() -> None:
    given = delivered(access(file=FileDelivery(path="db.json")), FIELDS, CONNECT)
    assert json.loads(given.files["db.json"].reveal()) == {
        "host": "127.0.0.1",
        "port": "5432",
        "username": "v-token-orders",
        "password": "hunter22",
    }


WHOLE = {**FIELDS, "dbname": Secret("shop")}


def test_a_password_file_has_a_line_as_libpq_reads_it_and_a_variable_names_it() -> None:
    odd = {**WHOLE, "password": Secret("a:b\\c")}
    given = delivered(access(pgpass=FileDelivery(path="pgpass")), odd, CONNECT)
    assert given.files["pgpass"].reveal() == "127.0.0.1:5432:shop:v-token-orders:a\\:b\\\\c\n"
    assert given.paths == {"PGPASSFILE": "pgpass"}
    assert not given.env


def test_two_credentials_share_a_password_file() -> None:
    first, second = (delivered(access(pgpass=FileDelivery(path="pgpass")), {**WHOLE, "username": Secret(name)}, CONNECT) for name in "ab")
    lines = first.joined(second).files["pgpass"].reveal().splitlines()
    assert lines == ["127.0.0.1:5432:shop:a:hunter22", "127.0.0.1:5432:shop:b:hunter22"]


def test_a_credential_of_no_database_and_a_value_of_two_lines_make_no_password_file() -> None:
    with pytest.raises(UndeliverableField, match="orders-db:read has no field dbname; it has host, password, port, username"):
        delivered(access(pgpass=FileDelivery(path="pgpass")), FIELDS, CONNECT)
    with pytest.raises(UndeliverableField, match="deliver it as a file") as refused:
        delivered(access(pgpass=FileDelivery(path="pgpass")), {**WHOLE, "password": Secret("one\ntwo")}, CONNECT)
    assert "one" not in str(refused.value).replace("more than one line", "")


def test_nothing_is_delivered_unasked() -> None:
    assert delivered(access(), FIELDS, CONNECT) == Delivered()


def test_a_field_that_is_not_there_is_named_with_those_that_are_and_no_value() -> None:
    with pytest.raises(UndeliverableField) as refused:
        delivered(access(env={"A": "token", "B": "passwort"}), FIELDS, CONNECT)
    assert str(refused.value) == "orders-db:read has no field passwort, token; it has host, password, port, username"


@pytest.mark.parametrize("value", ["nul\0inside", "x" * 100_001])
def test_what_cannot_be_a_variable_is_refused_without_showing_it(value: str) -> None:
    with pytest.raises(UndeliverableField, match="deliver it as a file") as refused:
        delivered(access(env={"A": "password"}), {"password": Secret(value)}, {})
    assert value[:5] not in str(refused.value)


def test_what_an_engine_issued_wins_over_the_catalog() -> None:
    given = delivered(access(env={"A": "host"}), {"host": Secret("issued")}, CONNECT)
    assert given.env["A"].reveal() == "issued"


def test_everything_but_the_user_name_is_secret() -> None:
    assert [value.reveal() for value in secrets_of({**FIELDS, "token": Secret("t0ken")})] == ["hunter22", "t0ken"]


def test_two_credentials_are_delivered_together() -> None:
    both = Delivered({"A": Secret("1")}, {"a": Secret("1")}).joined(Delivered({"B": Secret("2")}))
    assert set(both.env) == {"A", "B"}
    assert set(both.files) == {"a"}
