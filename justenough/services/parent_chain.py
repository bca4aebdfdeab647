"""Reads a job's ancestors from the ledger, with the resources they have touched so far, which count as touched by their descendants.

Nothing is cached, because ancestors that still run may touch more. Records nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from justenough.domain.approvals.tiers import Person
from justenough.domain.core.errors import GiveUp
from justenough.domain.core.ids import installation_of
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.credentials import HeldAccess
from justenough.domain.jobs.states import Action, Sensitivity
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel import views
from justenough.services.dependencies import Deps

MAX_ANCESTORS = 10
"""Maximum number of ancestors of a job. A longer chain is most likely a loop."""
TOUCHING_EVENTS = (EventType.ACCESS_REQUESTED, EventType.CREDENTIAL_ISSUED, EventType.CREDENTIAL_DOUBTED)


class NoSuchParent(GiveUp):
    """The named parent is unknown, or its chain of ancestors is too long."""


def read_submissions(deps: Deps, parent: str | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each ancestor's id, nearest first, with the data of the entry that submitted it. Raises NoSuchParent.

    Unlike reading what the ancestors have touched, this takes no longer for those that were issued many credentials.
    """
    for _ in range(MAX_ANCESTORS):
        if parent is None:
            return
        ours = installation_of(parent) == deps.settings.installation
        entry = deps.store.ledger.entry(f"{parent}/{EventType.JOB_SUBMITTED}") if ours else None
        if entry is None:
            raise NoSuchParent(_unknown_job_text(parent))
        yield parent, entry.data
        parent = entry.data["order"]["statement"].get("parent")
    if parent is not None:
        raise NoSuchParent(f"the job would have more than {MAX_ANCESTORS} ancestors; {MAX_ANCESTORS} is the maximum")


def why_no_parent(deps: Deps, parent: str, person: Person) -> Rejection | None:
    """Return why a person may not launch a job from within this one, or None if they may read it and it can be a parent. Raises RetryLater."""
    try:
        _, nearest = next(read_submissions(deps, parent))
    except NoSuchParent as error:
        return Rejection("parent_unknown", str(error))
    if nearest["requester"] != person.id and not person.groups & deps.config.current().tiers.reading_groups:
        # Use the same message as for an unknown job, so that nobody learns which ids exist.
        return Rejection("parent_unknown", _unknown_job_text(parent))
    return why_no_chain(deps, parent)


def ancestor_launchers(deps: Deps, parent: str | None, *, asked_by: str | None) -> frozenset[str]:
    """Return the entity ids of people who launched a job's ancestors or had the console order one, and `asked_by`. Raises NoSuchParent."""
    people = [asked_by]
    for _, submitted in read_submissions(deps, parent):
        people += [submitted["requester"], submitted["order"]["statement"].get("asked_by")]
    return frozenset(person for person in people if person is not None)


def console_requester_of(deps: Deps, job: str) -> str | None:
    """Return the entity id of the person for whom the console ordered this job, or None."""
    order = deps.store.jobs.order(job)
    return order.order.statement.get("asked_by") if order else None


def why_no_chain(deps: Deps, parent: str) -> Rejection | None:
    """Return why this job cannot be a parent, whoever the caller is, or None if it can. Raises RetryLater.

    Everybody who launched it or one of its ancestors must be an active person: they may have another entity by now, which could decide the
    requests of the descendants of their own job.
    """
    try:
        for job, submitted in read_submissions(deps, parent):
            statement = submitted["order"]["statement"]
            # The console launched a job that has an origin.
            launcher = statement.get("asked_by") if statement.get("origin") else submitted["requester"]
            if launcher is not None and deps.vault.person(launcher, deps.settings.people_mounts) is None:
                return Rejection("launcher_inactive", f"the person who launched {job} is no longer an active person")
    except NoSuchParent as error:
        return Rejection("parent_unknown", str(error))
    return None


def inherit_touched(deps: Deps, parent: str | None, held: HeldAccess) -> HeldAccess:
    """Return a job's held access, with the resources that its ancestors have touched so far added as touched. Raises NoSuchParent."""
    for job, _ in read_submissions(deps, parent):
        held = held.with_inherited(_read_touched(deps, job))
    return held


def ancestor_views(deps: Deps, parent: str | None) -> tuple[views.Ancestor, ...]:
    """Return the views of a job's ancestors, nearest first; empty if one is unknown."""
    try:
        return tuple(_to_view(deps, job, submitted) for job, submitted in read_submissions(deps, parent))
    except NoSuchParent:
        return ()


def _to_view(deps: Deps, job: str, submitted: Mapping[str, Any]) -> views.Ancestor:
    touched = _read_touched(deps, job)
    return views.Ancestor(
        job=job,
        name=submitted["name"],
        task=submitted["task"],
        requester=submitted["requester_name"],
        touched=tuple(sorted(touched.touched_resources)),
        sensitivity=touched.touched.name.lower(),
    )


def _read_touched(deps: Deps, job: str) -> HeldAccess:
    at_request: dict[str, Sensitivity] = {}
    touched = HeldAccess()
    ledger = deps.store.ledger
    # A job may have been issued very many credentials. Those of one request are for the same resource, so that one is enough.
    newest: dict[tuple[str, str], str] = {}
    for entry_id in ledger.ids(job, TOUCHING_EVENTS):
        _, kind, about = entry_id.split("/", 2)
        newest[kind, about.partition(".")[0]] = entry_id
    for entry in ledger.with_ids(newest.values()):
        data = entry.data
        if entry.type == EventType.ACCESS_REQUESTED:
            at_request[data["request"]] = Sensitivity[data["sensitivity"].upper()]
        else:
            # Use the higher of the recorded and the current sensitivity; restricted if neither is known.
            resource = deps.config.current().catalog.resources.get(data["resource"])
            sensitivities = (at_request.get(data["request"]), resource.sensitivity if resource else None)
            sensitivity = max((value for value in sensitivities if value is not None), default=Sensitivity.RESTRICTED)
            touched = touched.with_issued(data["resource"], Action(data["action"]), sensitivity)
    return touched


def _unknown_job_text(job: str) -> str:
    return f"there is no job {job}"
