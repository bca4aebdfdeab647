"""The access review of the catalog: actions that are unused, broader than their use, or not reviewed in time. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum

from justenough.domain.catalog.models import ActionDef, Catalog
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import Problem
from justenough.domain.core.units import duration_text
from justenough.domain.rightsizing.analysis import MIN_RUNS, next_readable_ttl
from justenough.domain.rightsizing.usage import AccessKey, ActionUse

MAX_TTL_FACTOR = 2
"""A max_ttl is reported as too long if it is at least this many times the longest granted ttl."""


class ReviewFindingKind(StrEnum):
    UNUSED = "unused"
    """No credential was issued under it in the period."""
    OVERDUE = "overdue"
    """Its review date has passed."""
    UNDATED = "undated"
    """It has no review date."""
    MAX_TTL = "max-ttl"
    """Its max_ttl is much longer than the longest granted ttl."""
    SCOPE = "scope"
    """No job requested one of its provisioned data scopes."""
    NARROWED = "narrowed"
    """Approvers always granted less than was requested."""


class ReviewFinding(Message):
    """One finding about one action."""

    resource: str
    action: str
    owner: str
    """The group that reviews it."""
    kind: ReviewFindingKind
    last_issued: datetime | None
    why: str
    todo: str


def build_access_review(
    catalog: Catalog, uses: Mapping[AccessKey, ActionUse], *, now: datetime, since: datetime
) -> tuple[ReviewFinding, ...]:
    """Return the findings in the catalog's order. `uses`: the use of each action since `since`; a missing action was never used."""
    return tuple(
        ReviewFinding(
            resource=name,
            action=action.value,
            owner=resource.reviewer(action),
            kind=kind,
            last_issued=use.last_issued if use else None,
            why=why,
            todo=todo,
        )
        for name, resource in catalog.resources.items()
        for action, definition in resource.actions.items()
        for use in (uses.get(AccessKey(name, action.value)),)
        for kind, why, todo in _action_findings(catalog, definition, use, now=now, since=since)
    )


def find_undated_actions(catalog: Catalog) -> tuple[Problem, ...]:
    """Return a warning for each action without a review date, by YAML path: nobody will be reminded to review it."""
    return tuple(
        Problem(f"{where}.review", "no review date; add `review: {by: YYYY-MM-DD}`")
        for where, definition in catalog.iter_actions()
        if definition.review.by is None
    )


def _action_findings(
    catalog: Catalog, definition: ActionDef, use: ActionUse | None, *, now: datetime, since: datetime
) -> Iterator[tuple[ReviewFindingKind, str, str]]:
    """Yield each finding as (kind, why, todo)."""
    by = definition.review.by
    if by is None:
        yield ReviewFindingKind.UNDATED, "has no review date", "Set review.by in the catalog."
    elif by < now.astimezone(UTC).date():
        todo = "Check who uses it and for what, then set the next date in review.by."
        yield ReviewFindingKind.OVERDUE, f"its review was due by {by}", todo
    if use is None or use.last_issued is None or use.last_issued < since:
        last = f"last issued on {use.last_issued.astimezone(UTC).date()}" if use and use.last_issued else "never issued"
        todo = "Remove it from the catalog, or record in its review why it stays."
        yield ReviewFindingKind.UNUSED, f"{last}; not issued since {since.astimezone(UTC).date()}", todo
        return
    if use.granted >= MIN_RUNS:
        grants, longest = f"{use.granted:,} grants" if use.whole else f"the newest {use.granted:,} grants", use.longest_granted
        if longest and definition.max_ttl >= MAX_TTL_FACTOR * longest:
            why = f"max_ttl is {duration_text(definition.max_ttl)}; the longest of {grants} was {duration_text(longest)}"
            yield ReviewFindingKind.MAX_TTL, why, f"Set max_ttl to {duration_text(min(next_readable_ttl(longest), definition.max_ttl))}."
        if use.narrowed == use.granted:
            todo = "Offer less: a shorter max_ttl or a narrower action. Have jobs request less (justenough job tighten)."
            yield ReviewFindingKind.NARROWED, f"each of {grants} allowed less than the job requested", todo
    requested = [{key: scope.get(key) for key in definition.data_scope} for scope in use.scopes]
    for scope in catalog.scopes_with(definition.data_scope) if use.whole and definition.data_scope else ():
        if dict(scope) not in requested:
            name = ", ".join(f"{key}={value}" for key, value in scope.items())
            todo = f"If nobody needs {name} here, provision it only for the actions that need it."
            yield ReviewFindingKind.SCOPE, f"nobody requested {name}", todo
