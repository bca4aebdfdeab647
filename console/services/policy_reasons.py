"""The sentences that explain policies: the comments above them in the configuration in force."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from justenough.domain.readmodel.views import RequestView
from justenough.services.dependencies import Deps


def policy_reasons(deps: Deps, names: Iterable[str], *, digest: str) -> Mapping[str, str]:
    """Return the sentence of each named policy that has one, by id; none if the policies in force are not those of the digest."""
    policies, wanted = deps.config.current().policies, frozenset(names)
    return {rule.id: rule.why for rule in policies.rules if rule.id in wanted and rule.why} if policies.digest == digest else {}


def with_policy_reasons(deps: Deps, view: RequestView) -> RequestView:
    """Return a request with the sentences of the policies that decided it."""
    return view.model_copy(update={"policy_reasons": policy_reasons(deps, view.policies, digest=view.policy_digest)})
