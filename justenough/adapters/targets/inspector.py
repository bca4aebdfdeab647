"""Inspects every target of the catalog: finds the users and spaces of jobs by names, and deletes them. Decides nothing.

If a target is down, only that target fails.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

from justenough.adapters.targets.postgres import (
    TargetInspection,
    TargetObserver,
    TargetTrace,
    escape_like,
    name_patterns,
    target_name,
    why_unreachable,
)
from justenough.adapters.targets.postgres_locks import UNSAFE
from justenough.adapters.targets.reaper import NOT_ISSUED_TEXT, Reaper
from justenough.adapters.vault import Vault
from justenough.domain.catalog.models import ActionDef, Catalog, Target
from justenough.domain.core.errors import GiveUp, RetryLater
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.states import Action

MAX_CONCURRENCY = 8
MAX_REAPER_SILENCE_S = 15.0
"""Seconds for which a reaper that is busy may have done nothing and still counts as working."""
MAX_USERS_NAMED = 3
JOB_ID_PATTERN = r"j-{installation}-[0-9a-z]{{26}}"

RequestedActions = AbstractSet[tuple[str, str]]
"""Resource and action of each request."""


class TargetInspector:
    """Inspects every target of the catalog. Each has one connection, which is replaced after some seconds."""

    def __init__(self, vault: Vault, catalog: Callable[[], Catalog], *, installation: str) -> None:
        self._vault = vault
        self._catalog = catalog
        self._job = re.compile(JOB_ID_PATTERN.format(installation=re.escape(installation)))
        self._like = f"j-{escape_like(installation)}-%"
        self._observers: dict[Target, TargetObserver] = {}
        self._reapers: dict[Target, Reaper] = {}
        self._lock = threading.Lock()

    def inspect(self, job: str, actions: RequestedActions | None = None, *, names: Collection[str] = ()) -> TargetInspection:
        """Find the spaces and users whose names contain a job's id, and users with these exact names, in the targets of these requests (None: of
        the catalog).
        """
        return self._for_each(actions, lambda observer: observer.find(*name_patterns(job), names))

    def traces_of(self, job: str) -> tuple[TargetTrace, ...]:
        """Return the users and spaces whose names contain a job's id, in the targets that answer."""
        return self.inspect(job).traces

    def end_all_of(self, job: str, actions: RequestedActions | None = None) -> TargetInspection:
        """Delete every user whose name contains a job's id, then the job's spaces. Return the deleted users and spaces."""
        return self._for_each(actions, lambda observer: self._reaper_at(observer.target).end(job))

    def require_reaper(self, target: Target) -> None:
        """Return if this process can end users at a target, with a connection that it already has. Raises as `Reaper.require` does."""
        self._reaper_at(target).require()

    def check_reapers(self, *, timeout_s: float) -> tuple[str, ...]:
        """Return a failure, `target NAME: WHY`, for each target of the catalog at which this process could not end users now.

        Each target has a thread of its own, so that one that hangs delays no other.
        """
        try:
            targets = {definition.target for _, definition in self._catalog().iter_actions() if definition.target}
        except RetryLater:
            # The inspection of the targets reports it.
            return ()
        if not targets:
            return ()
        reapers = [self._reaper_at(target) for target in targets]
        pool = ThreadPoolExecutor(len(reapers), thread_name_prefix="reaper check")
        checks = {pool.submit(reaper.require): reaper for reaper in reapers}
        wait(checks, timeout=timeout_s)
        # A check that hangs ends by itself: each of its steps has a limit.
        pool.shutdown(wait=False)
        failures = []
        for check, reaper in checks.items():
            if not check.done():
                # One that is busy ending users works.
                why = "" if reaper.has_worked_within(MAX_REAPER_SILENCE_S) else f"no answer in {timeout_s:g} s"
            elif isinstance(error := check.exception(), RetryLater | GiveUp):
                why = str(error).removeprefix(f"target {reaper.name}: ").removesuffix(NOT_ISSUED_TEXT)
            else:
                why = type(error).__name__ if error else ""
            if why:
                failures.append(f"target {reaper.name}: users cannot be ended: {why}")
        return tuple(failures)

    def why_alive(self, jobs: AbstractSet[str]) -> tuple[str, ...]:
        """Return a failure, `target NAME: WHY`, for each target in which users of these jobs are alive: who, and which sessions keep them."""
        alive: dict[str, dict[str, str]] = {}
        for user in self.job_ids()[1].users:
            if (match := self._job.search(user.name)) and match[0] in jobs:
                left = f"; left: {', '.join(user.left)}" if user.left else ""
                alive.setdefault(user.target, {})[user.name] = re.sub(UNSAFE, "?", user.name) + f" (job {match[0]}{left})"
        sessions = self.find_locks({name for users in alive.values() for name in users}) if alive else ()
        failures = []
        for target, users in alive.items():
            names, more = [*users.values()][:MAX_USERS_NAMED], len(users) - MAX_USERS_NAMED
            named = ", ".join(names) + (f" and {more:,} more" if more > 0 else "")
            kept = [f"session {text}" for text in _after(f"session in {target}: ", sessions)] + _after(f"lock in {target}: ", sessions)
            # One that nobody holds is ended by the next attempt, and must not keep others from launching.
            if kept:
                failures.append("; ".join((f"target {target}: users of jobs that have ended are alive: {named}", *kept)))
        return tuple(failures)

    def actions_by_target(self) -> dict[str, tuple[str, ...]]:
        """Return the actions of the catalog, as `resource:action`, by the name of the target in which their users are."""
        found: dict[str, list[str]] = {}
        for resource, definition in self._catalog().resources.items():
            for action, action_def in definition.actions.items():
                if action_def.target:
                    found.setdefault(target_name(action_def.target), []).append(f"{resource}:{action.value}")
        return {name: tuple(actions) for name, actions in found.items()}

    def _reaper_at(self, target: Target) -> Reaper:
        with self._lock:
            return self._reapers.setdefault(target, Reaper(self._vault, target))

    def find_locks(self, names: Collection[str], actions: RequestedActions | None = None) -> tuple[str, ...]:
        """Return a sentence for each session that holds locks on these users and spaces, and for each target that could not be asked.

        The sentences have the syntax of `justenough.domain.ledger.overdue.end_session_advice`.
        """
        found = self._for_each(actions, lambda observer: observer.find_locks(names))
        unseen = (failure.removeprefix("target ").partition(": ") for failure in found.failures)
        return (*found.locks, *(f"lock in {target}: could not check which session holds one ({why})" for target, _, why in unseen))

    def find_hazards(self) -> TargetInspection:
        """Find what a job could do in each target of the catalog beside its task."""
        return self._for_each(None, lambda observer: observer.find_hazards())

    def job_ids(self) -> tuple[set[str], TargetInspection]:
        """Return the ids of this installation's jobs that occur in the names of users and spaces, and the inspection that found them."""
        inspection = self._for_each(None, lambda observer: observer.find(f"%{self._like}", f"space-{self._like}"))
        return {match[0] for trace in inspection.traces if (match := self._job.search(trace.name))}, inspection

    def has_target(self, resource: str, action: Action) -> bool:
        """Whether the action's users are in a target. True if no catalog is known, because they may be."""
        return self._may_be(resource, action, lambda definition: definition.target is not None)

    def gives_space(self, resource: str, action: Action) -> bool:
        """Whether issuing an action creates a space for its job in the target. True if no catalog is known, because it may."""
        return self._may_be(resource, action, lambda definition: definition.space)

    def is_same_target(self, credential: CredentialHandle, other: CredentialHandle) -> bool:
        """Whether the users of two credentials are known to be in the same target."""
        try:
            catalog = self._catalog()
        except RetryLater:
            return False
        first, second = (catalog.action(item.resource, item.action) for item in (credential, other))
        return first is not None and second is not None and first.target == second.target

    def close(self) -> None:
        """Close every connection and revoke the users of the connections."""
        with self._lock:
            observers, self._observers = list(self._observers.values()), {}
            reapers, self._reapers = list(self._reapers.values()), {}
        for observer in observers:
            observer.close()
        for reaper in reapers:
            reaper.close()

    def _may_be(self, resource: str, action: Action, has: Callable[[ActionDef], bool]) -> bool:
        try:
            definition = self._catalog().action(resource, action)
        except RetryLater:
            return True
        return definition is not None and has(definition)

    def _for_each(self, actions: RequestedActions | None, act: Callable[[TargetObserver], TargetInspection]) -> TargetInspection:
        """Run `act` for each target of these requests (None: of the catalog), concurrently."""
        try:
            catalog = self._catalog()
        except RetryLater as error:
            return TargetInspection(failures=(f"targets: {error}",))
        definitions = {
            (name, action.value): item for name, resource in catalog.resources.items() for action, item in resource.actions.items()
        }
        if actions is not None and actions <= definitions.keys():
            definitions = {key: definitions[key] for key in definitions if key in actions}
        # Otherwise use every target: a request under an earlier catalog may have used any of them.
        targets: dict[Target, bool] = {}
        for definition in definitions.values():
            if definition.target:
                targets[definition.target] = targets.get(definition.target, False) or definition.space
        with self._lock:
            for target in targets.keys() - self._observers.keys():
                self._observers[target] = TargetObserver(self._vault, target)
            observers = [self._observers[target] for target in targets]
        with_spaces = {observer.name for observer, has_space in zip(observers, targets.values(), strict=True) if has_space}
        if len(observers) < 2:
            results = [_inspect_one(observer, act) for observer in observers]
        else:
            with ThreadPoolExecutor(min(MAX_CONCURRENCY, len(observers))) as pool:
                results = list(pool.map(lambda observer: _inspect_one(observer, act), observers))
        return TargetInspection(
            users=tuple(user for result in results for user in result.users),
            empty_roles=tuple(role for result in results for role in result.empty_roles),
            spaces=tuple(space for result in results for space in result.spaces),
            inspected=tuple(name for result in results for name in result.inspected),
            space_targets=tuple(name for result in results for name in result.inspected if name in with_spaces),
            locks=tuple(lock for result in results for lock in result.locks),
            hazards=tuple(hazards for result in results for hazards in result.hazards),
            failures=tuple(why for result in results for why in result.failures),
        )


def _after(prefix: str, texts: Sequence[str]) -> list[str]:
    return [text.removeprefix(prefix) for text in texts if text.startswith(prefix)]


def _inspect_one(observer: TargetObserver, act: Callable[[TargetObserver], TargetInspection]) -> TargetInspection:
    try:
        return replace(act(observer), inspected=(observer.name,))
    except Exception as error:  # noqa: BLE001 - a failure of one target must not fail the others
        why = str(error) if isinstance(error, RetryLater | GiveUp) else why_unreachable(error)
        return TargetInspection(failures=(f"target {observer.name}: {why}",))
