"""The catalog's review: what nobody uses, is broader than its use, or was not looked at in time. No I/O, no clock."""

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
"""How many times the longest granted ttl a maximum may be, before it is called broader than its use."""


class ReviewFindingKind(StrEnum):
    UNUSED = "unused"
    """No credential was issued under it in the time that is looked at."""
    OVERDUE = "overdue"
    """Its review date has passed."""
    UNDATED = "undated"
    """It has no review date."""
    MAX_TTL = "max-ttl"
    """It may last much longer than anybody was granted."""
    SCOPE = "scope"
    """A data scope is provisioned for it that no job asked for."""
    NARROWED = "narrowed"
    """Approvers never granted what was asked."""


class ReviewFinding(Message):
    """One thing to review in one action."""

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
    """Return what there is to review, in the catalog's order. `uses`: what was asked since `since`; an action that is not there never was."""
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
        for kind, why, todo in (*_date_findings(definition, now), *_breadth_findings(catalog, definition, use, since))
    )


def find_undated_actions(catalog: Catalog) -> tuple[Problem, ...]:
    """Return the actions without a review date, by YAML path: no error, but nobody will be reminded of them."""
    return tuple(
        Problem(f"resources.{name}.actions.{action}.review", "no review date; add `review: {by: YYYY-MM-DD}`")
        for name, resource in catalog.resources.items()
        for action, definition in resource.actions.items()
        if definition.review.by is None
    )


def _date_findings(definition: ActionDef, now: datetime) -> Iterator[tuple[ReviewFindingKind, str, str]]:
    by = definition.review.by
    if by is None:
        yield ReviewFindingKind.UNDATED, "has no review date", "Set review.by in the catalog."
    elif by < now.astimezone(UTC).date():
        yield (
            ReviewFindingKind.OVERDUE,
            f"was to be reviewed by {by}",
            "Look at who uses it and for what, then set the next date in review.by.",
        )


def _breadth_findings(
    catalog: Catalog, definition: ActionDef, use: ActionUse | None, since: datetime
) -> Iterator[tuple[ReviewFindingKind, str, str]]:
    if use is None or use.last_issued is None or use.last_issued < since:
        last = f"last issued on {use.last_issued.astimezone(UTC).date()}" if use and use.last_issued else "never issued"
        yield (
            ReviewFindingKind.UNUSED,
            f"{last}, so not since {since.astimezone(UTC).date()}",
            "Take it out of the catalog, or say why it stays in its review.",
        )
        return
    if use.granted >= MIN_RUNS:
        yield from _grant_findings(definition, use)
    if use.whole:
        yield from _scope_findings(catalog, definition, use)


def _grant_findings(definition: ActionDef, use: ActionUse) -> Iterator[tuple[ReviewFindingKind, str, str]]:
    of = f"{use.granted:,} grants" if use.whole else f"the newest {use.granted:,} grants"
    longest = use.longest_granted
    if longest and definition.max_ttl >= MAX_TTL_FACTOR * longest:
        why = f"max_ttl is {duration_text(definition.max_ttl)}; the longest of {of} was {duration_text(longest)}"
        yield ReviewFindingKind.MAX_TTL, why, f"Set max_ttl to {duration_text(min(next_readable_ttl(longest), definition.max_ttl))}."
    if use.narrowed == use.granted:
        todo = "Offer less: a shorter max_ttl, or a narrower action; and have jobs ask for less (justenough job tighten)."
        yield ReviewFindingKind.NARROWED, f"each of {of} was for less than was asked", todo


def _scope_findings(catalog: Catalog, definition: ActionDef, use: ActionUse) -> Iterator[tuple[ReviewFindingKind, str, str]]:
    asked = [{key: scope.get(key) for key in definition.data_scope} for scope in use.scopes]
    for scope in catalog.scopes_with(definition.data_scope) if definition.data_scope else ():
        if dict(scope) not in asked:
            named = ", ".join(f"{key}={value}" for key, value in scope.items())
            yield (
                ReviewFindingKind.SCOPE,
                f"nobody asked for {named}",
                f"If nobody needs {named} here, provision it for the actions that need it alone.",
            )
