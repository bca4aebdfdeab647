"""Which calls in the SQL of a catalog name no schema, and where they are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.catalog.loader import read_catalog
from justenough.domain.catalog.provisioned_sql import find_unqualified_calls, reject_unqualified_calls
from justenough.domain.core.errors import InvalidInput

SHOP = (Path(__file__).resolve().parents[3] / "examples" / "shop" / "catalog.yaml").read_text()
PLUGIN = "plugin_name: postgresql-database-plugin"


@pytest.mark.parametrize(
    "sql, names",
    [
        ("SELECT format('x')", ["format"]),
        ("SELECT pg_catalog.format('x')", []),
        ('SELECT pg_catalog . format (\'x\'), "public"."f"(1)', []),
        ("SELECT \"format\"('x'), FORMAT ('x')", ['"format"', "FORMAT"]),
        ("SELECT 1, format('x') AS y", ["format"]),
        ("DO $$ BEGIN EXECUTE format('x'); IF (found) THEN PERFORM pg_catalog.f(g(1)); END IF; END $$", ["format", "g"]),
        ("CREATE FUNCTION public.f() RETURNS int AS $x$ SELECT $$ g(1) $$; SELECT h(1) $x$", ["g", "h"]),
        ("SELECT 'f(1)', E'it\\'s g(1)', 'it''s h(1)', U&'i(1)' -- j(1)\n/* k(1) */", []),
        ("SELECT f(1) -- it's a comment\n, g(1)", ["f", "g"]),
        ("WITH RECURSIVE part(a, b) AS (SELECT f(1)), rest(c) AS NOT MATERIALIZED (SELECT 2) SELECT * FROM part", ["f"]),
        ("SELECT position('a' IN 'b'), coalesce(a, b), extract(year FROM c), d::numeric(10, 2), cast(e AS varchar(3))", []),
        ("SELECT substring('abc' FROM 1), substring('abc', 1)", ["substring", "substring"]),
        ("SELECT a FROM public.t WHERE a IN (1) AND (b OR NOT (c)) AND EXISTS (SELECT 1)", []),
        ("GRANT SELECT (id, tenant), INSERT, UPDATE (status) ON public.orders TO writer", []),
        ("INSERT INTO audit (name) VALUES ('x')", ["audit"]),
        ("SELECT * FROM json_to_record('{}') AS row(a int)", ["json_to_record"]),
        ("CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE readers", []),
        ("SELECT je_open_space('{{name}}')", ["je_open_space"]),
        ("${FORBID_LOGIN}", []),
        ("SELECT f (", ["f"]),
        ("(", []),
        ("", []),
    ],
)
def test_an_sql_call_without_a_schema_is_found(sql: str, names: list[str]) -> None:
    assert list(find_unqualified_calls(sql)) == names


@given(st.text(alphabet="$'\"(;a.-*/ \n\\éE", max_size=40))
def test_any_text_can_be_searched_for_unqualified_calls(sql: str) -> None:
    assert all(find_unqualified_calls(sql))


def problems_of(text: str) -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        reject_unqualified_calls(read_catalog(text))
    return {problem.path: problem.message for problem in caught.value.problems}


def test_the_shops_sql_has_no_unqualified_call() -> None:
    reject_unqualified_calls(read_catalog(SHOP))


def test_an_unqualified_call_in_a_shared_text_is_reported_once() -> None:
    calls = "DO $$ BEGIN IF to_regrole('x') IS NULL THEN RETURN; END IF; END $$"
    broken = SHOP.replace("ONLY_BUILT_IN: ", f"ONLY_BUILT_IN: {calls}; ").replace("CREATE_USER: ", f"CREATE_USER: {calls}; ")
    problems = problems_of(broken)
    assert set(problems) == {"texts.ONLY_BUILT_IN", "texts.CREATE_USER"}
    assert problems["texts.CREATE_USER"] == (
        "it calls to_regrole(…) without a schema; write the schema too (pg_catalog for built-in functions), "
        "because a function of the same name in another schema could run as Vault's login instead"
    )


def test_statements_of_roles_and_connections_are_read_as_lists_or_texts() -> None:
    as_text = SHOP.replace('"SELECT public.je_open_space', '"SELECT je_open_space').replace(
        PLUGIN, f"{PLUGIN}\n      root_rotation_statements: ALTER ROLE x PASSWORD md5('y')"
    )
    assert {path: message.partition(" without")[0] for path, message in problems_of(as_text).items()} == {
        "resources.scratch.actions.write.role.creation_statements": "it calls je_open_space(…)",
        "provision[2].data.root_rotation_statements": "it calls md5(…)",
    }


def test_sql_of_other_databases_may_have_unqualified_calls() -> None:
    other = SHOP.replace(PLUGIN, "plugin_name: mysql-database-plugin").replace("public.je_open_space", "je_open_space")
    reject_unqualified_calls(read_catalog(other))
