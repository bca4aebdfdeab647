"""What a job could do in a real PostgreSQL beside its task: each hazard is made there, named, and put back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest

from justenough.adapters.configuration.scaffold import END_USERS_SQL_FILE
from justenough.adapters.targets.inspector import TargetInspector
from justenough.adapters.targets.postgres_hazards import SQL_VERSION, PostgresHazards
from tests.activities.vault_shop import Desk

GROUP = "shop_orders_read_acme"
SAFE = PostgresHazards("dbname=shop", SQL_VERSION, True, True, False, 0, True, (), (), ())


def look(at: Desk) -> PostgresHazards:
    targets = TargetInspector(at.deps.vault, lambda: at.deps.config.current().catalog, installation=at.deps.settings.installation)
    try:
        seen = targets.find_hazards()
    finally:
        targets.close()
    assert seen.failures == ()
    (hazards,) = seen.hazards
    return hazards


def texts(seen: PostgresHazards) -> list[str]:
    return [hazard.found for hazard in seen.hazards()]


@contextmanager
def changed(at: Desk, make: str, undo: str) -> Iterator[None]:
    """Run statements as the superuser, and others afterwards."""
    with psycopg.connect(at.shop.superuser, autocommit=True) as database:
        database.execute(make.encode())
        try:
            yield
        finally:
            database.execute(undo.encode())


def test_the_version_that_is_looked_for_is_that_of_the_sql_file() -> None:
    (version,) = re.findall(r"public\.je_sql_version\(\) RETURNS integer .* RETURN (\d+);", END_USERS_SQL_FILE.read_text())
    assert int(version) == SQL_VERSION


@pytest.mark.servers
def test_the_shop_has_no_hazard(at: Desk) -> None:
    assert list(look(at).hazards()) == []


@pytest.mark.servers
@pytest.mark.parametrize(
    "make, undo, found",
    [
        (
            "GRANT EXECUTE ON FUNCTION pg_catalog.pg_advisory_lock(bigint) TO PUBLIC",
            "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_advisory_lock(bigint) FROM PUBLIC",
            ["a job could fill the lock table with advisory locks, and so delay the end of other jobs"],
        ),
        (
            "ALTER DATABASE shop RESET temp_file_limit",
            "ALTER DATABASE shop SET temp_file_limit = '1GB'",
            ["there is no temp_file_limit: a job could fill the disk"],
        ),
        (
            f"CREATE TABLE public.of_a_group (); ALTER TABLE public.of_a_group OWNER TO {GROUP}",
            "DROP TABLE public.of_a_group",
            [f"a job could alter and drop what its group owns: {GROUP}"],
        ),
        (
            "ALTER EVENT TRIGGER je_guard_groups DISABLE",
            "ALTER EVENT TRIGGER je_guard_groups ENABLE",
            ["there is no event trigger je_guard_groups: a job may run DROP OWNED BY its group"],
        ),
        (
            f"ALTER EVENT TRIGGER je_guard_groups DISABLE; CREATE POLICY named ON public.refunds TO {GROUP} USING (true)",
            "ALTER EVENT TRIGGER je_guard_groups ENABLE; DROP POLICY named ON public.refunds",
            [
                "there is no event trigger je_guard_groups: a job may run DROP OWNED BY its group",
                "a job could remove its group from row policies of public.refunds",
            ],
        ),
        (
            f"ALTER EVENT TRIGGER je_guard_groups DISABLE; ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {GROUP}",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE SELECT ON TABLES FROM {GROUP}; ALTER EVENT TRIGGER je_guard_groups ENABLE",
            [
                "there is no event trigger je_guard_groups: a job may run DROP OWNED BY its group",
                f"a job could change default privileges of {GROUP}",
            ],
        ),
        (
            f"CREATE POLICY named ON public.refunds TO {GROUP} USING (true)",
            "DROP POLICY named ON public.refunds",
            [],
        ),
    ],
    ids=["advisory locks", "temporary files", "owning group", "no trigger", "policies", "default privileges", "policies, with the trigger"],
)
def test_each_hazard_is_named_while_it_is_there(at: Desk, make: str, undo: str, found: list[str]) -> None:
    with changed(at, make, undo):
        seen = look(at)
    assert texts(seen) == found
    assert not seen.is_sql_old
    assert texts(look(at)) == []


@pytest.mark.servers
def test_what_the_sql_file_itself_brings_is_named_if_it_is_older_or_missing(at: Desk) -> None:
    sql = END_USERS_SQL_FILE.read_text()
    older = re.sub(r"(je_sql_version\(\) .* RETURN) \d+;", r"\1 0;", sql)
    with changed(at, older, sql):
        old = look(at)
    with changed(at, "DROP FUNCTION public.je_sql_version()", sql):
        missing = look(at)
    assert (old.is_sql_old, texts(old)) == (True, [f"its SQL has version 0, and this version of JustEnough needs {SQL_VERSION}"])
    assert (missing.is_sql_old, missing.sql_version) == (True, None)
    assert texts(missing) == [f"there is no je_sql_version(), so its SQL is older than version {SQL_VERSION}"]
    with psycopg.connect(at.shop.superuser) as database:
        superuser = database.info.user
    (hazard,) = old.hazards()
    where = f"host=127.0.0.1 port={at.shop.door.port} dbname=shop"
    assert hazard.remedy == f'Run psql "{where} user={superuser}" -v ON_ERROR_STOP=1 -1 -f {END_USERS_SQL_FILE}'
    assert texts(look(at)) == []


@pytest.mark.servers
def test_the_groups_are_unknown_if_no_maker_of_roles_made_the_observer(at: Desk) -> None:
    with changed(at, "ALTER ROLE je_vault SUPERUSER", "ALTER ROLE je_vault NOSUPERUSER"):
        assert texts(look(at)) == ["the groups of jobs are unknown, because no role with CREATEROLE made the observer"]


def test_prepared_transactions_are_named_with_their_setting() -> None:
    # The setting needs a restart of the server, which other tests share.
    (hazard,) = replace(SAFE, max_prepared_transactions=7).hazards()
    assert hazard.found == "max_prepared_transactions is 7: a prepared transaction keeps its locks without a session"


def test_every_hazard_has_a_remedy_and_many_names_are_shortened() -> None:
    names = ("a", "b\x1b", "c", "d", "e")
    worst = PostgresHazards("dbname=shop", None, False, False, True, 1, False, names, names, names)
    hazards = list(worst.hazards())
    assert len(hazards) == 9
    assert all(hazard.remedy for hazard in hazards)
    assert sum("a, b?, c and 2 more" in hazard.found for hazard in hazards) == 3
