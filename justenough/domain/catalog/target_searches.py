"""Checks the values in Vault that determine whether a lost credential's user can be found in its target by the job's id, and whether Vault ends
users so that no job can prevent it. Pure: callers pass the function that reads a path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from justenough.domain.catalog.loader import issue_paths
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.placeholders import fill_scope
from justenough.domain.core.vault_names import DATABASE_CREDS_PATH

TEMPLATE_REMEDY = (
    "If Vault's answer to an issue is lost, its credential stays in doubt until it must have ended. "
    "Make username_template contain the whole .DisplayName: docs/reference/engines.md"
)
ENDING = re.compile(r"\bCOMMIT\b[\s;]*CALL\s+public\.je_end_user\s*\(", re.IGNORECASE)
"""Matches the revocation statements that no lock of a job can hold up (docs/decisions/0065-access-dies-before-its-role.md)."""
ENDING_REMEDY = (
    """Write revocation_statements: [COMMIT, "CALL public.je_end_user('{{name}}')"]: docs/how-to/deployment.md#databases-as-targets"""
)
CHANGED_DISPLAY_NAME = re.compile(r"\.DisplayName\s*\|\s*((?:base64|sha256|uppercase|(?:truncate|truncate_sha256)\s+(\d+)))")
SHORTEST_DISPLAY_NAME = len("token-j-x-") + 26
"""The length of the shortest prefix of .DisplayName that contains the job's id: Vault writes `token-` and then the id."""


@dataclass(frozen=True, slots=True)
class SearchProblem:
    """A reason why searches in targets, or the end of users there, may not work, found at this path in Vault."""

    path: str
    why: str
    remedy: str
    is_missing: bool
    """Vault has nothing at this path."""


def search_problems(catalog: Catalog, read: Callable[[str], Mapping[str, Any] | None]) -> Iterator[SearchProblem]:
    """Yield the roles of actions with a `target` that do not exist in Vault or do not end users as they should, and connections whose users'
    names hide the job's id.

    `read` returns the data at a path in Vault, or None if there is none.
    """
    connections: dict[str, str] = {}
    for path, place in _target_roles(catalog).items():
        if match := DATABASE_CREDS_PATH.fullmatch(path):
            mount, name = match.groups()
            role = read(f"{mount}/roles/{name}")
            if role is None:
                yield _missing_problem(f"{mount}/roles/{name}", place)
            elif ".target." not in place:
                connections.setdefault(f"{mount}/config/{role.get('db_name')}", place)
                # The catalog and Vault write statements as a list or as one text.
                statements = role.get("revocation_statements") or ""
                if not ENDING.search(";".join(map(str, statements)) if isinstance(statements, list) else str(statements)):
                    ending = f"its revocation_statements do not call public.je_end_user after a COMMIT, so a job's locks can keep users of {place} alive"
                    yield SearchProblem(f"{mount}/roles/{name}", ending, ENDING_REMEDY, is_missing=False)
    for path, place in connections.items():
        connection = read(path)
        if connection is None:
            yield _missing_problem(path, place)
        elif why := why_unsearchable((connection.get("connection_details") or connection).get("username_template")):
            yield SearchProblem(path, f"{why}, so no search by job id finds users of {place}", TEMPLATE_REMEDY, is_missing=False)


def _target_roles(catalog: Catalog) -> dict[str, str]:
    """Return the Vault paths of the users in all targets, each with the YAML path of the first action or target that needs it."""
    places: dict[str, str] = {}
    for where, definition in catalog.iter_actions():
        if definition.target is not None:
            for path in issue_paths(catalog, definition):
                places.setdefault(path, where)
            places.setdefault(definition.target.observe, f"{where}.target.observe")
            places.setdefault(definition.target.end, f"{where}.target.end")
    return places


def _missing_problem(path: str, place: str) -> SearchProblem:
    remedy = "Create it (`justenough vault setup` does if the catalog provisions it), or correct the path in the catalog."
    return SearchProblem(path, f"it does not exist, but {place} needs it", remedy, is_missing=True)


def provision_reader(catalog: Catalog) -> Callable[[str], Mapping[str, Any] | None]:
    """Return a function that returns the data that the catalog writes to a path in Vault, with settings not filled in."""
    writes = {
        fill_scope(write.path, scope): write.data for _, write in catalog.iter_writes() for scope in catalog.scopes_with(write.per_scope)
    }
    return writes.get


def why_unsearchable(template: str | None) -> str | None:
    """Return why names from a database connection's `username_template` cannot contain the job's id; None if they may."""
    if not template:
        return "Vault's default username_template cuts the display name, which has the job's id, after 8 characters"
    changed = [match for match in CHANGED_DISPLAY_NAME.finditer(template) if match[2] is None or int(match[2]) < SHORTEST_DISPLAY_NAME]
    if not template.count(".DisplayName"):
        return "its username_template does not contain .DisplayName, which has the job's id"
    if len(changed) == template.count(".DisplayName"):
        return f"its username_template changes .DisplayName, which has the job's id ({changed[0][1]})"
    return None
