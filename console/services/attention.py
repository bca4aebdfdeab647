"""What needs attention, for one person; and acknowledging it. Blocking, for a thread."""

from __future__ import annotations

from console.auth.authorization import STOPPING_ROLES, Caller
from console.services.dashboard import DashboardFigures
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import InvalidInput, NotFound, Problem
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN, EventType
from justenough.domain.readmodel.attention import Acknowledgement, AttentionItem
from justenough.domain.readmodel.dashboard import ALL_JOBS, JobFilter
from justenough.services.dependencies import Deps
from justenough.services.ledger_events import event_of_person

MAX_NOTE_CHARS = 500


def visible_items(caller: Caller, figures: DashboardFigures, only: JobFilter = ALL_JOBS) -> tuple[AttentionItem, ...]:
    """Return the items that a person may read: those about jobs that they may read; about the installation, if they may read all jobs."""
    # There are at most so many items of a kind, so those of other people must not be among them.
    items = figures.attention(only.model_copy(update={"requester_id": caller.requester_filter or ""}))
    return tuple(item for item in items if (caller.can_read_jobs_of(item.requester_id) if item.job else caller.can_read_all))


def can_acknowledge(caller: Caller, item: AttentionItem) -> bool:
    """Whether a person may acknowledge an item: those who may stop its job; for the installation, those who may stop any job."""
    return caller.can_stop_jobs_of(item.requester_id) if item.job else bool(caller.roles & set(STOPPING_ROLES))


def acknowledge(deps: Deps, figures: DashboardFigures, caller: Caller, key: str, note: str, *, only: JobFilter = ALL_JOBS) -> AttentionItem:
    """Record that the caller takes care of an item, and return it. `only`: the filter with which the item was listed.

    Raises NotFound if it no longer needs attention, Forbidden, InvalidInput.
    """
    if len(note) > MAX_NOTE_CHARS:
        raise InvalidInput("acknowledgement", (Problem("note", f"is longer than {MAX_NOTE_CHARS} characters; shorten it"),))
    item = next((item for item in visible_items(caller, figures, only) if item.key == key), None)
    if item is None:
        raise NotFound("this needs no attention any more, or you may not see it")
    if item.job:
        caller.require_right_to_stop(item.requester_id)
    else:
        caller.require(*STOPPING_ROLES)
    now, person, kind = deps.now(), caller.person, EventType.ATTENTION_ACKNOWLEDGED
    about = digest_of({"item": key, "person": person.id, "at": now.isoformat()}).removeprefix("sha256:")[:24]
    event = event_of_person(person, kind, item.job or UNATTRIBUTED_CHAIN, at=now, about=about, item=key, note=note)
    deps.store.ledger.append([event])
    answer = Acknowledgement(item=key, person=person.name, person_id=person.id, note=note, at=now)
    return item.model_copy(update={"acknowledged": answer})
