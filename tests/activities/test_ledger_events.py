from __future__ import annotations

from datetime import UTC, datetime

import pytest

from justenough.services.ledger_events import approval_rejected_event

ENTITY = "6f2d1c0e-7a4b-4c1d-9e8f-0123456789ab"


def test_an_answer_that_is_no_json_is_recorded_without_a_digest() -> None:
    event = approval_rejected_event("j-dev-x", "why", at=datetime.now(UTC), about="signal-1", raw={"ttl": float("nan")})
    assert event.data["received"] is None
    assert event.id.endswith("/signal-1")


@pytest.mark.parametrize(
    "person,recorded",
    [
        (ENTITY, ENTITY),
        # Outside of Vault's root namespace, the namespace's id follows.
        (f"{ENTITY}.Yx2Zq", f"{ENTITY}.Yx2Zq"),
        ("somebody else's text", None),
        (7, None),
    ],
)
def test_a_rejected_answer_names_its_person_only_by_an_entity_id(person: object, recorded: str | None) -> None:
    event = approval_rejected_event("j-dev-x", "why", at=datetime.now(UTC), about="signal-1", raw={}, person=person)

    assert event.data["person"] == recorded
