"""Which templates and roles make a search by job id impossible."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from justenough.domain.catalog.loader import read_catalog
from justenough.domain.catalog.target_searches import SHORTEST_DISPLAY_NAME, provision_reader, search_problems, why_unsearchable

SHOP = (Path(__file__).resolve().parents[3] / "examples" / "shop" / "catalog.yaml").read_text()
GOOD = '{{ printf "%s-%s-%s" (random 8) .DisplayName .RoleName | truncate 63 }}'


@pytest.mark.parametrize(
    "template, why",
    [
        (GOOD, None),
        ("{{.DisplayName}}", None),
        (f"{{{{ .DisplayName | truncate {SHORTEST_DISPLAY_NAME} }}}}", None),
        ("{{ (.DisplayName | lowercase) }}-{{ random 8 }}", None),
        ('{{ printf "%s-%s" (.DisplayName | truncate 8) .DisplayName }}', None),
        (None, "Vault's default username_template cuts the display name, which has the job's id, after 8 characters"),
        ("", "Vault's default username_template cuts the display name, which has the job's id, after 8 characters"),
        ("{{ .RoleName }}-{{ random 20 }}", "its username_template does not contain .DisplayName, which has the job's id"),
        (
            '{{ printf "v-%s-%s" (.DisplayName | truncate 8) (random 20) }}',
            "its username_template changes .DisplayName, which has the job's id (truncate 8)",
        ),
        (
            f"{{{{ .DisplayName | truncate {SHORTEST_DISPLAY_NAME - 1} }}}}",
            "its username_template changes .DisplayName, which has the job's id (truncate 35)",
        ),
        ("{{ .DisplayName | sha256 }}", "its username_template changes .DisplayName, which has the job's id (sha256)"),
        ("{{.DisplayName|uppercase}}", "its username_template changes .DisplayName, which has the job's id (uppercase)"),
        (
            "{{ .DisplayName | truncate_sha256 20 }}",
            "its username_template changes .DisplayName, which has the job's id (truncate_sha256 20)",
        ),
    ],
)
def test_a_template_that_hides_the_jobs_id_is_named(template: str | None, why: str | None) -> None:
    assert why_unsearchable(template) == why


def test_the_shops_targets_can_be_searched_by_job_id() -> None:
    catalog = read_catalog(SHOP)
    assert list(search_problems(catalog, provision_reader(catalog))) == []


def test_a_connection_is_named_once_with_the_first_action_that_uses_it() -> None:
    catalog = read_catalog(SHOP.replace(GOOD, "{{ random 20 }}"))
    (found,) = search_problems(catalog, provision_reader(catalog))
    assert (found.path, found.is_missing) == ("database/config/shop", False)
    assert found.why == (
        "its username_template does not contain .DisplayName, which has the job's id, "
        "so no search by job id finds users of resources.orders-db.actions.read"
    )
    assert "docs/reference/engines.md" in found.remedy


@pytest.mark.parametrize(
    "statements, is_named",
    [
        ("[COMMIT, \"CALL public.je_end_user('{{name}}')\"]", False),
        ("\"COMMIT; CALL public.je_end_user('{{name}}');\"", False),
        ("[\"CALL public.je_end_user('{{name}}')\"]", True),
        ("[\"SELECT public.je_end_user('{{name}}')\"]", True),
        ("['DROP ROLE \"{{name}}\"']", True),
        ("[]", True),
        ("null", True),
    ],
)
def test_a_role_whose_users_a_jobs_locks_can_keep_alive_is_named(statements: str, *, is_named: bool) -> None:
    (ending,) = re.findall(r"revocation_statements: (.*)", SHOP)
    catalog = read_catalog(SHOP.replace(ending, statements))
    found = {problem.path: problem for problem in search_problems(catalog, provision_reader(catalog))}
    assert ("database/roles/orders-read-acme" in found) is is_named
    assert "database/roles/je-observer" not in found, "no job is its user"
    if is_named:
        problem = found["database/roles/orders-read-acme"]
        assert not problem.is_missing
        assert problem.why.startswith("its revocation_statements do not call public.je_end_user after a COMMIT")
        assert "resources.orders-db.actions.read" in problem.why


@pytest.mark.parametrize(
    "missing, place",
    [
        ("database/roles/orders-read-acme", "resources.orders-db.actions.read"),
        ("database/roles/je-observer", "resources.orders-db.actions.read.target.observe"),
        ("database/roles/je-reaper", "resources.orders-db.actions.read.target.end"),
        ("database/config/shop", "resources.orders-db.actions.read"),
    ],
)
def test_a_missing_role_or_connection_is_named_with_what_needs_it(missing: str, place: str) -> None:
    catalog = read_catalog(SHOP)
    read = provision_reader(catalog)

    def read_all_but_one(path: str) -> Any:
        return None if path == missing else read(path)

    (found,) = search_problems(catalog, read_all_but_one)
    assert (found.path, found.why, found.is_missing) == (missing, f"it does not exist, but {place} needs it", True)
