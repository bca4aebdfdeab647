"""The pure parts of a job's identity: its claims, its audience, and that a stock JOSE library reads it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from joserfc.errors import BadSignatureError, InvalidKeyIdError

from justenough.domain.approvals.statements import OrderStatement
from justenough.domain.catalog.audiences import checked_audience
from justenough.domain.core.errors import InvalidInput
from justenough.domain.integrations.job_identity import CLAIMS, TOKEN_LIFETIME, build_claims, build_token, signing_input, to_jwk
from tests.support.domain_samples import JOB, NOW, spec
from tests.support.identity_verifier import alter_claims, verify_identity

PRIVATE = Ed25519PrivateKey.from_private_bytes(b"0" * 32)
PUBLISHED = {"keys": [to_jwk(7, PRIVATE.public_key().public_bytes_raw())]}
ISSUER, AUDIENCE = "https://console.example", "https://vault.example"
AGENT = {"name": "refund-agent", "version": "1.4", "model": "scripted", "owner": "support"}
BUNDLE = "sha256:" + "b" * 64


def claims(*, now: datetime = NOW, bundle: str | None = BUNDLE, **changes: Any) -> dict[str, Any]:
    order = OrderStatement(
        job=JOB,
        spec_digest="sha256:" + "a" * 64,
        bundle=bundle,
        params={},
        reason="because Ms Somebody asked",
        person="entity-of-ops",
        issued_at=now,
        expires_at=now + timedelta(hours=1),
    )
    given = {"agent": AGENT, "data_scope": {"tenant": "acme"}, **changes}
    return build_claims(
        spec(**{name: value for name, value in given.items() if value}), order, issuer=ISSUER, audience=AUDIENCE, token_id="1", now=now
    )


def sign_claims(payload: dict[str, Any], *, version: int = 7) -> str:
    message = signing_input(payload, version=version)
    return build_token(message, PRIVATE.sign(message)).reveal()


def test_a_token_says_which_job_acts_as_whom_with_what_on_whose_data() -> None:
    said = claims()
    assert said == {
        "iss": ISSUER,
        "sub": JOB,
        "aud": AUDIENCE,
        "iat": int(NOW.timestamp()),
        "nbf": int(NOW.timestamp()),
        "exp": int(NOW.timestamp()) + 300,
        "jti": "1",
        "job": JOB,
        "name": "refund-triage",
        "agent": AGENT,
        "bundle": BUNDLE,
        "task": "Refund a ticket",
        "environment": "prod",
        "data_scope": {"tenant": "acme"},
    }
    assert set(said) == set(CLAIMS)


def test_an_identity_token_names_no_person() -> None:
    assert "entity-of-ops" not in str(claims())
    assert "Somebody" not in str(claims())


def test_claims_that_a_job_does_not_have_are_left_out_and_not_empty() -> None:
    said = claims(bundle=None, agent=None)
    assert set(CLAIMS) - set(said) == {"agent", "bundle"}


def test_a_token_is_never_valid_before_now_or_beyond_its_lifetime() -> None:
    now = NOW + timedelta(milliseconds=999)
    said = claims(now=now)
    assert said["nbf"] <= now.timestamp()
    assert said["exp"] <= (now + TOKEN_LIFETIME).timestamp()


@given(
    st.dictionaries(st.sampled_from(["task", "name", "environment"]), st.text(min_size=1, max_size=80)), st.integers(1, 1000), st.booleans()
)
def test_a_stock_library_reads_every_token_with_the_same_claims(texts: dict[str, str], version: int, now_is_late: bool) -> None:
    said = {**claims(), **texts}
    published = {"keys": [to_jwk(version, PRIVATE.public_key().public_bytes_raw())]}
    at = NOW + timedelta(seconds=299 if now_is_late else 0)
    assert verify_identity(sign_claims(said, version=version), published, issuer=ISSUER, audience=AUDIENCE, now=at) == said


def test_a_stock_library_refuses_what_was_altered_or_signed_by_another() -> None:
    good, other = sign_claims(claims()), Ed25519PrivateKey.from_private_bytes(b"1" * 32)
    message = signing_input(claims(), version=7)
    for token in (alter_claims(good, "acme", "evil"), build_token(message, other.sign(message)).reveal()):
        with pytest.raises(BadSignatureError):
            verify_identity(token, PUBLISHED, issuer=ISSUER, audience=AUDIENCE, now=NOW)
    with pytest.raises(InvalidKeyIdError):
        verify_identity(sign_claims(claims(), version=8), PUBLISHED, issuer=ISSUER, audience=AUDIENCE, now=NOW)


def test_a_token_does_not_print_itself() -> None:
    message = signing_input(claims(), version=7)
    assert "ey" not in repr(build_token(message, PRIVATE.sign(message)))


@pytest.mark.parametrize("audience", ["je-console", "https://vault.example/v1", "a", "a" * 255, "sts.example:443 with blanks", "größe"])
def test_a_valid_audience_is_used_unchanged(audience: str) -> None:
    assert checked_audience(audience) == audience


@pytest.mark.parametrize("audience", ["", " ", " a", "a ", "a" * 256, "a\nb", "a\x00", "a\u202eb", "\ud800", "\u200b"])
def test_an_invalid_audience_is_refused_with_a_description_of_valid_ones(audience: str) -> None:
    with pytest.raises(InvalidInput, match="audience: must be 1 to 255 printable characters"):
        checked_audience(audience)
