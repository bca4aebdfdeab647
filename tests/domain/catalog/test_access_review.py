"""The catalog's review: what it finds in an action, who must review it, and what it leaves alone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from justenough.domain.catalog.access_review import ReviewFindingKind, build_access_review, find_undated_actions
from justenough.domain.catalog.loader import read_catalog
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.errors import InvalidInput
from justenough.domain.core.untrusted_yaml import check_json
from justenough.domain.rightsizing.usage import AccessKey, ActionUse
from tests.domain.catalog.test_loader import PLAIN, catalog_with
from tests.support.domain_samples import SHOP

NOW = datetime(2026, 4, 30, 9, 30, tzinfo=UTC)
SINCE = NOW - timedelta(days=90)
READ = AccessKey("orders-db", "read")
TENANTS = ({"tenant": "acme"}, {"tenant": "globex", "region": "eu"})


def action_uses(key: AccessKey = READ, **changes: Any) -> dict[AccessKey, ActionUse]:
    plain = {
        "asked": 9,
        "granted": 9,
        "narrowed": 0,
        "longest_granted": 1800,
        "last_issued": NOW - timedelta(days=1),
        "scopes": TENANTS,
        "whole": True,
    }
    return {key: ActionUse(resource=key.resource, action=key.action, **{**plain, **changes})}


def catalog(**review: Any) -> Catalog:
    """A catalog of one action, which may last 30 minutes, for the tenants acme and globex."""
    read = {**PLAIN["resources"]["orders-db"]["actions"]["read"], **({"review": review} if review else {})}
    return catalog_with("resources/orders-db/actions", {"read": read})


def findings(catalog: Catalog, uses: dict[AccessKey, ActionUse]) -> dict[str, str]:
    return {one.kind.value: one.why for one in build_access_review(catalog, uses, now=NOW, since=SINCE)}


DATED = catalog(by="2026-04-30")


@pytest.mark.parametrize(
    "offered,changes,expected",
    [
        (DATED, {}, {}),
        (catalog(by="2026-04-29"), {}, {"overdue": "its review was due by 2026-04-29"}),
        (catalog(), {}, {"undated": "has no review date"}),
        (catalog(owner="security"), {}, {"undated": "has no review date"}),
        (DATED, {"last_issued": None}, {"unused": "never issued; not issued since 2026-01-30"}),
        (DATED, {"last_issued": SINCE - timedelta(days=1)}, {"unused": "last issued on 2026-01-29; not issued since 2026-01-30"}),
        (DATED, {"last_issued": SINCE}, {}),
        (DATED, {"longest_granted": 900}, {"max-ttl": "max_ttl is 30m; the longest of 9 grants was 15m"}),
        (DATED, {"longest_granted": 901}, {}),
        (DATED, {"longest_granted": 900, "granted": 2}, {}),  # Too few to tell.
        (DATED, {"narrowed": 9}, {"narrowed": "each of 9 grants allowed less than the job requested"}),
        (DATED, {"narrowed": 8}, {}),
        (DATED, {"narrowed": 9, "whole": False}, {"narrowed": "each of the newest 9 grants allowed less than the job requested"}),
        (DATED, {"scopes": TENANTS[:1]}, {"scope": "nobody requested tenant=globex"}),
        (DATED, {"scopes": TENANTS[:1], "whole": False}, {}),  # One that was not looked at may have.
    ],
    ids=range(15),
)
def test_a_review_reports_exactly_the_expected_findings_of_an_action(
    offered: Catalog, changes: dict[str, Any], expected: dict[str, str]
) -> None:
    assert findings(offered, action_uses(**changes)) == expected


def test_an_action_that_was_never_requested_is_reported_only_as_unused() -> None:
    assert findings(DATED, {}) == {"unused": "never issued; not issued since 2026-01-30"}


def test_an_action_is_reviewed_by_its_resources_owner_unless_it_names_another() -> None:
    for review, owner in (({"by": "2026-01-01"}, "support-leads"), ({"by": "2026-01-01", "owner": "security"}, "security")):
        (one,) = build_access_review(catalog(**review), action_uses(), now=NOW, since=SINCE)
        assert (one.owner, one.kind, one.last_issued) == (owner, ReviewFindingKind.OVERDUE, NOW - timedelta(days=1))


def test_every_finding_says_what_to_do() -> None:
    uses = action_uses(longest_granted=60, narrowed=9, scopes=())
    told = {
        one.kind: one.todo
        for offered in (catalog(), catalog(by="2026-01-01"))
        for one in build_access_review(offered, uses, now=NOW, since=SINCE)
    }
    told |= {one.kind: one.todo for one in build_access_review(DATED, {}, now=NOW, since=SINCE)}
    assert set(told) == set(ReviewFindingKind)
    assert all(told.values())
    assert told[ReviewFindingKind.MAX_TTL] == "Set max_ttl to 1m."


def test_actions_without_a_review_date_are_reported_by_their_path() -> None:
    assert [str(one) for one in find_undated_actions(catalog(owner="security"))] == [
        "resources.orders-db.actions.read.review: no review date; add `review: {by: YYYY-MM-DD}`"
    ]
    assert find_undated_actions(DATED) == ()


def test_the_shop_has_every_action_reviewed_and_none_is_overdue() -> None:
    shop = read_catalog((SHOP / "catalog.yaml").read_bytes())
    kinds = {one.kind for one in build_access_review(shop, {}, now=NOW, since=SINCE)}
    assert kinds == {ReviewFindingKind.UNUSED}


@pytest.mark.parametrize(
    "day", ["2026-02-30", "30.01.2026", "20260130", "2026-1-3", "2026-W05-5", 1767225600, True, ["2026-01-30"]], ids=str
)
def test_a_review_date_is_a_day_of_the_calendar(day: object) -> None:
    with pytest.raises(InvalidInput, match=r"actions\.read\.review\.by: must be a date like 2030-01-31"):
        catalog(by=day)


def test_the_review_date_of_an_action_survives_writing_and_reading() -> None:
    raw = DATED.model_dump(mode="json")
    check_json("catalog", raw)
    read = Catalog.model_validate(raw).resources["orders-db"].actions
    assert [definition.review.by for definition in read.values()] == [date(2026, 4, 30)]
