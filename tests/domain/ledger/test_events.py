"""Events: one form, the fields that are documented and no others, an id made from what happened."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from justenough.domain.ledger.events import Event, EventType, build_event, parse_entry_time
from tests.support.domain_samples import JOB, NOW

DOCS = Path(__file__).resolve().parents[3] / "docs" / "reference" / "ledger.md"


def sample_data(kind: EventType) -> dict[str, Any]:
    return dict.fromkeys(kind.fields, "x")


def test_every_type_has_fields_without_duplicates() -> None:
    assert all(kind.fields and len(set(kind.fields)) == len(kind.fields) for kind in EventType)
    assert all(name.isidentifier() for kind in EventType for name in kind.fields)


def fields_in_docs() -> dict[str, list[str]]:
    """Each event's fields in the order in which docs/reference/ledger.md lists and describes them."""
    rows = re.findall(r"^\| (?:`([a-z.]+)`)? \| `([a-z_]+)` \| \S[^\n]* \|$", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    named: list[tuple[str, str]] = []
    for kind, field in rows:
        named.append((kind or named[-1][0], field))
    return {kind: [field for _, field in group] for kind, group in groupby(named, key=lambda row: row[0])}


def test_the_docs_list_and_describe_every_event_and_field() -> None:
    assert fields_in_docs() == {kind.value: list(kind.fields) for kind in EventType}, f"{DOCS.name} differs from EventType"


@pytest.mark.parametrize("kind", EventType)
def test_an_event_has_exactly_its_fields(kind: EventType) -> None:
    data = sample_data(kind)
    made = build_event(kind, JOB, at=NOW, about="1", **data)
    assert (made.job, made.type, made.at, made.data) == (JOB, kind, NOW, data)
    with pytest.raises(ValueError, match="unknown fields"):
        build_event(kind, JOB, at=NOW, **data, password="x")
    with pytest.raises(ValueError, match="missing fields"):
        build_event(kind, JOB, at=NOW, **dict(list(data.items())[1:]))


def test_the_same_fact_has_the_same_id_whenever_it_is_recorded() -> None:
    first = build_event(EventType.CREDENTIAL_CONFIRMED, JOB, at=NOW, about="c-1", credential="c-1", how="looked")
    again = build_event(EventType.CREDENTIAL_CONFIRMED, JOB, at=NOW.replace(year=2027), about="c-1", credential="c-1", how="looked again")
    other = build_event(EventType.CREDENTIAL_CONFIRMED, JOB, at=NOW, about="c-2", credential="c-2", how="looked")
    assert first.id == again.id == f"{JOB}/credential.confirmed/c-1"
    assert other.id != first.id


def test_the_id_of_an_event_that_happens_once_per_job_is_the_job_and_the_type() -> None:
    assert build_event(EventType.JOB_ENDED, JOB, at=NOW, state="failed", exit_code=1, reason=None).id == f"{JOB}/job.ended"


def test_an_event_survives_writing_and_reading_as_json() -> None:
    made = build_event(EventType.JOB_ENDED, JOB, at=NOW, state="failed", exit_code=1, reason="x")
    assert Event.model_validate(json.loads(made.model_dump_json())) == made


def test_no_event_has_a_field_for_a_secret() -> None:
    assert not {name for kind in EventType for name in kind.fields} & {"password", "token", "secret", "value", "secret_id", "key"}


@pytest.mark.parametrize("text", ["2026-01-31T09:30:00.5", "2026-01-31T09:30:00.5+00:00", "2026-01-31T10:30:00.5+01:00"])
def test_a_time_without_an_offset_is_utc(text: str) -> None:
    assert parse_entry_time(text) == datetime(2026, 1, 31, 9, 30, 0, 500_000, tzinfo=UTC)
