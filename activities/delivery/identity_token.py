"""Issues a job's identity token: short-lived, signed by Vault, for one audience. Blocking: the broker calls it in a thread."""

from __future__ import annotations

import uuid

from activities.issuing.results import NotPermitted
from activities.issuing.vault_issuer import require_may_issue
from justenough.adapters.configuration.settings import NO_ISSUER
from justenough.domain.catalog.audiences import checked_audience
from justenough.domain.core.errors import GiveUp
from justenough.domain.core.secret import Secret
from justenough.domain.integrations.job_identity import TOKEN_LIFETIME, build_claims, build_token, signing_input
from justenough.domain.ledger.events import EventType, build_event
from justenough.services.dependencies import Deps
from justenough.services.verify_order import VerifiedOrder


class NoIssuer(GiveUp):
    """The settings name no issuer for identity tokens."""


class AudienceNotAllowed(NotPermitted):
    """The catalog does not allow this job to get an identity token for the audience in the message."""


def issue_identity_token(deps: Deps, verified: VerifiedOrder, audience: str, *, owner: str) -> Secret:
    """Record and return an identity token of the job for one audience. `owner`: the session that calls.

    Raises InvalidInput (not a valid audience), AudienceNotAllowed (not in the catalog), NoIssuer, AccessClosed, and what Vault and the store raise.
    """
    job, audience, issuer = verified.statement.job, checked_audience(audience), deps.settings.workload_issuer
    if why := deps.config.current().catalog.identity.why_not_allowed(audience, environment=verified.spec.environment):
        raise AudienceNotAllowed(why)
    if issuer is None:
        raise NoIssuer(NO_ISSUER)
    # Read the clock before the claim: then no token outlives the claim by more than its lifetime, however long signing takes.
    now, token_id = deps.now(), uuid.uuid4().hex
    require_may_issue(deps, job, owner=owner)
    claims = build_claims(verified.spec, verified.statement, issuer=issuer, audience=audience, token_id=token_id, now=now)
    signed, signature = deps.vault.sign_identity(lambda version: signing_input(claims, version=version))
    expires = (now + TOKEN_LIFETIME).isoformat()
    issued = build_event(EventType.IDENTITY_ISSUED, job, at=now, about=token_id, audience=audience, expires_at=expires, jti=token_id)
    deps.store.ledger.append([issued])
    return build_token(signed, signature)
