"""What needs attention, for one person; and acknowledging it. Blocking, for a thread."""

from __future__ import annotations

from console.auth.authorization import STOPPING_ROLES, Caller, groups_with_role, missing_group_text
from console.services.dashboard import DashboardFigures
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import Forbidden, InvalidInput, NotFound, Problem
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN, EventType, build_event
from justenough.domain.readmodel.attention import Acknowledgement, AttentionItem
from justenough.domain.readmodel.dashboard import ALL_JOBS, JobFilter
from justenough.services.dependencies import Deps

MAX_NOTE_CHARS = 500


def visible_items(figures: DashboardFigures, caller: Caller, only: JobFilter = ALL_JOBS) -> tuple[AttentionItem, ...]:
    """Return the items that a person may read: those about jobs that they may read; about the installation, if they may read all jobs."""
    # Of each kind only the newest items are read, so they must be this person's.
    items = figures.attention(only.model_copy(update={"requester": caller.requester_filter or ""}))
    return tuple(item for item in items if (caller.can_read_jobs_of(item.requester_id) if item.job else caller.can_read_all))


def can_acknowledge(caller: Caller, item: AttentionItem) -> bool:
    """Whether a person may acknowledge an item: those who may stop its job; for the installation, those who may stop any job."""
    return caller.can_stop_jobs_of(item.requester_id) if item.job else bool(caller.roles & set(STOPPING_ROLES))


def acknowledge(deps: Deps, figures: DashboardFigures, caller: Caller, key: str, note: str) -> AttentionItem:
    """Record that the caller takes care of an item, and return it.

    Raises NotFound if it no longer needs attention, Forbidden, InvalidInput.
    """
    if len(note) > MAX_NOTE_CHARS:
        raise InvalidInput("acknowledgement", (Problem("note", f"is longer than {MAX_NOTE_CHARS} characters; shorten it"),))
    item = next((item for item in visible_items(figures, caller) if item.key == key), None)
    if item is None:
        raise NotFound("this needs no attention any more, or you may not see it")
    if not can_acknowledge(caller, item):
        raise Forbidden(
            caller.who_may_stop if item.job else missing_group_text(g for r in STOPPING_ROLES for g in groups_with_role(r, caller.tiers))
        )
    now, person = deps.now(), caller.person
    event = build_event(
        EventType.ATTENTION_ACKNOWLEDGED,
        item.job or UNATTRIBUTED_CHAIN,
        at=now,
        about=digest_of({"item": key, "person": person.id, "at": now.isoformat()}).removeprefix("sha256:")[:24],
        item=key,
        person=person.id,
        name=person.name,
        note=note,
    )
    deps.store.ledger.append([event])
    answer = Acknowledgement(item=key, person=person.name, person_id=person.id, note=note, at=now)
    return item.model_copy(update={"acknowledged": answer})
