"""Tries an action of the catalog without a job: issue, find in the target, log in, revoke, verify. Afterwards it revokes whatever is left,
even after an error.

It does what a worker does, with a worker's login in Vault, under a new job id. The ledger does not show it; Vault's audit log does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Literal, NamedTuple

from justenough.adapters.configuration.folder import load_config_folder
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.targets.inspector import TargetInspector
from justenough.adapters.targets.postgres import log_in_once
from justenough.adapters.vault import IssuedSecret, Vault, pki
from justenough.domain.catalog.loader import resolve_issue, scope_alias
from justenough.domain.catalog.models import ActionDef
from justenough.domain.core.errors import InvalidInput, JustEnoughError, Problem, RetryLater
from justenough.domain.core.ids import new_job_id
from justenough.domain.core.placeholders import did_you_mean
from justenough.domain.jobs.states import Action, Revocable
from justenough.services.dependencies import open_worker_vault

TRIAL_TTL_S = 60


class TrialStep(NamedTuple):
    step: str
    outcome: Literal["ok", "failed", "not possible"]
    found: str


class StepFailed(Exception):
    """A step had the wrong result. The message says what was found instead."""


def try_action(
    settings: Settings, env: Mapping[str, str], resource: str, action: Action, data_scope: Mapping[str, str]
) -> Iterator[TrialStep]:
    """Yield each step's result until one fails.

    Raises InvalidInput if the catalog has no such action; RetryLater or GiveUp if the login to Vault fails.
    """
    catalog = load_config_folder(settings.config, env).catalog
    definition, place = catalog.action(resource, action), f"resources.{resource}"
    if resource not in catalog.resources:
        raise InvalidInput("catalog.yaml", (Problem("resources", f"no resource {resource!r}{did_you_mean(resource, catalog.resources)}"),))
    if definition is None:
        raise InvalidInput("catalog.yaml", (Problem(f"{place}.actions", f"offers no {action.value}"),))
    if definition.locked:
        why = "Vault issues it only after people have authorized a job's request (lock: control_group), so it cannot be tried without a job"
        raise InvalidInput("catalog.yaml", (Problem(f"{place}.actions.{action.value}", why),))
    with ExitStack() as stack:
        vault = stack.enter_context(open_worker_vault(settings))
        targets = stack.enter_context(closing(TargetInspector(vault, lambda: catalog, installation=settings.installation)))
        job = new_job_id(settings.installation, now=datetime.now(UTC))
        vault.open_prefix(job, TRIAL_TTL_S)
        trial = _Trial(vault, targets, job, resource, action, definition, data_scope)
        # Also if the trial is interrupted. If the process is killed, everything ends with the token (TRIAL_TTL_S).
        stack.callback(trial.clean_up)
        for step, applies, act in trial.steps():
            try:
                found = act() if applies else ""
            except (StepFailed, JustEnoughError) as error:
                yield TrialStep(step, "failed", str(error))
                break
            yield TrialStep(step, "ok" if found else "not possible", found or trial.why_not(step))
        if left := trial.clean_up():
            yield TrialStep("clean up", "failed", f"something of {job} may be alive: {'; '.join(left)}")


@dataclass(slots=True)
class _Trial:
    """One action, and the credential that was issued for it."""

    vault: Vault
    targets: TargetInspector
    job: str
    resource: str
    action: Action
    definition: ActionDef
    data_scope: Mapping[str, str]
    issued: list[IssuedSecret] = field(default_factory=list, repr=False)
    lost: bool = False
    """Whether Vault's answer was lost: then a user may exist anyway, or appear later."""

    def steps(self) -> Iterator[tuple[str, bool, Callable[[], str]]]:
        """Yield the steps in order, with whether each applies to the action."""
        has_target, is_revocable = self.definition.target is not None, self.definition.revocable is Revocable.NOW
        yield "issue", True, self.issue
        yield "find in target", has_target, self.find
        yield "log in", has_target, self.log_in
        yield "revoke", is_revocable, self.revoke
        yield "verify", is_revocable, self.verify
        if has_target and is_revocable:
            # Vault's own statements ended the first user. The worker also ends users itself.
            yield "end in target", True, self.end_in_target

    def why_not(self, step: str) -> str:
        """Return why the step does not apply to an action."""
        if self.definition.revocable is not Revocable.NOW and step in {"revoke", "verify"}:
            return f"`revocable: {self.definition.revocable.value}`: what was issued stays valid until it ends by itself or its owner changes it"
        return "the action has no `target`, so nothing can be checked outside Vault"

    def issue(self) -> str:
        """Have Vault issue the credential under the job's own token."""
        token = self.vault.create_token(
            self.job, policy=self.definition.policy, alias=scope_alias(self.definition, self.data_scope), ttl=TRIAL_TTL_S
        )
        values = {"job": self.job, "ttl": str(TRIAL_TTL_S)}
        try:
            one = self.vault.issue(token, resolve_issue(self.definition, self.data_scope, issue_values=values))
        except RetryLater:
            self.lost = True
            raise
        self.issued.append(one)
        if why := pki.why_unfit(self.definition, one, grant_ends=self.vault.clock.now() + timedelta(seconds=TRIAL_TTL_S)):
            raise StepFailed(f"a worker would not give it to any job: {why}")
        return f"Vault issued {', '.join(sorted(one.fields))}" + (f" for {one.ttl} s" if one.lease_id else ", without a lease")

    def find(self) -> str:
        """Look for the user in the target, as the worker does before it gives a job the credential."""
        user = self._user()
        traces = self._inspect()
        if user not in traces:
            raise StepFailed(
                f"Vault created the user {user}, but the observer does not see it: check `target`, and that `observe` may log in"
            )
        if self.job not in user:
            return f"{user}; its name has no job id, so it cannot be found if Vault's answer is lost (username_template)"
        return user

    def log_in(self) -> str:
        if why := self._why_no_login():
            raise StepFailed(f"the login of {self._user()} is refused: {why}")
        return f"as {self._user()}"

    def revoke(self) -> str:
        self.vault.revoke_lease(self._lease())
        return self._lease().rpartition("/")[0]

    def verify(self) -> str:
        if self.vault.is_lease_alive(self._lease()):
            raise StepFailed("Vault still knows the lease after its revocation")
        if certificate := pki.certificate_path(self.definition, self.issued[-1]):
            if pki.is_unrevoked(self.vault, certificate):
                raise StepFailed(f"{certificate} is not in the CRL that Vault serves; does the mount have `auto_rebuild`?")
            return f"{certificate} is in the CRL that Vault serves"
        return self._verify_user_is_gone("Vault's revocation_statements have not ended it") or "Vault does not know the lease any more"

    def end_in_target(self) -> str:
        """Issue once more, and end the user with the function that the worker calls."""
        self.issue()
        ended = self.targets.end_all_of(self.job, self._where())
        if ended.failures:
            raise StepFailed("; ".join(ended.failures))
        return self._verify_user_is_gone("public.je_end_users has not ended it; PostgreSQL's log has its warning")

    def clean_up(self) -> tuple[str, ...]:
        """Revoke its leases and everything under the job's prefix, end its users, delete the prefix. Return why something may be left over."""
        left = []
        acts: tuple[Callable[[], object], ...] = (
            # Vault revokes a token's leases some time after the token.
            *(partial(self.vault.revoke_lease, one.lease_id) for one in self.issued if one.lease_id),
            lambda: self.vault.revoke_prefix(self.job),
            self._end_users,
            lambda: self.vault.close_prefix(self.job),
        )
        for act in acts:
            try:
                act()
            except (StepFailed, JustEnoughError) as error:
                left.append(str(error))
        return tuple(left)

    def _end_users(self) -> None:
        if self.definition.target is None or not (self.issued or self.lost):
            return
        ended = self.targets.end_all_of(self.job, self._where())
        # The user of a credential that cannot be revoked may stay, such as a static role's.
        names = (self._user(),) if self.issued and self.definition.revocable is Revocable.NOW else ()
        seen = self.targets.inspect(self.job, self._where(), names=names)
        if seen.failures:
            raise StepFailed(f"the target could not be checked: {'; '.join(seen.failures)}")
        if alive := [trace.name for trace in seen.users]:
            raise StepFailed(f"the target still has {', '.join(alive)}: {'; '.join(ended.failures) or 'they were not deleted'}")
        if self.lost:
            raise StepFailed("Vault's answer was lost, so it may still create a user: check in half a minute that the target has none")

    def _verify_user_is_gone(self, otherwise: str) -> str:
        if self.definition.target is None:
            return ""
        user = self._user()
        if user in self._inspect():
            raise StepFailed(f"the target still has the user {user}: {otherwise}")
        if not self._why_no_login():
            raise StepFailed(
                f"{user} can still log in, though the observer does not see it: is `target` the server on which Vault creates users?"
            )
        return f"{user} is gone, and its login is refused"

    def _why_no_login(self) -> str | None:
        one, target = self.issued[-1], self.definition.target
        return log_in_once(target, one.fields["username"], one.fields["password"]) if target else None

    def _inspect(self) -> set[str]:
        seen = self.targets.inspect(self.job, self._where(), names=(self._user(),))
        if seen.failures:
            raise StepFailed("; ".join(seen.failures))
        return {trace.name for trace in seen.users}

    def _lease(self) -> str:
        lease = self.issued[-1].lease_id
        assert lease, "an action that is `revocable: now` fails at its issue without one"
        return lease

    def _where(self) -> frozenset[tuple[str, str]]:
        return frozenset({(self.resource, self.action.value)})

    def _user(self) -> str:
        user = self.issued[-1].fields.get("username")
        if user is None:
            raise StepFailed("Vault's answer names no user, so the action cannot have a `target`")
        return user.reveal()
