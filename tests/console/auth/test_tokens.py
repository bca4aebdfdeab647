"""Whom a token stands for. Anything except a fresh token of this Vault, for this audience, of an existing person, gets 401."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, OKPKey

from console.auth.authorization import Caller
from console.auth.tokens import _REGISTRY, TokenVerifier
from console.auth.vault_directory import ConsoleVault
from console.services.console import build_console
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.errors import RetryLater, Unauthenticated
from justenough.services.dependencies import Deps
from tests.activities.tcp_door import Door
from tests.console.served_console import Human, Served, serve_console
from tests.support.plain_http import NO_TLS
from worker.stack.binaries import Programs


def claims(human: Human, issuer: str, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    return {"iss": issuer, "aud": "je-console", "sub": human.id, "iat": now, "exp": now + 600} | changes


def forge_token(key: Any, payload: dict[str, Any], kid: str, alg: str = "EdDSA") -> str:
    # joserfc warns of the name EdDSA, which is Vault's.
    registry = _REGISTRY if alg == "EdDSA" else None
    return jwt.encode({"alg": alg, "kid": kid}, payload, key, algorithms=[alg] if registry is None else None, registry=registry)


async def whoami(served: Served, authorization: str | None) -> httpx.Response:
    headers = {"Authorization": authorization} if authorization is not None else {}
    return await served.http.get("/api/v1/whoami", headers=headers)


def issue_token(admin: httpx.Client, human: Human, role: str, **options: Any) -> str:
    """A token that Vault itself signs for a person, under a role of our making."""
    admin.post(f"identity/oidc/key/{role}", json={"allowed_client_ids": ["*"], "algorithm": "EdDSA"}).raise_for_status()
    admin.post(f"identity/oidc/role/{role}", json={"key": role, **options}).raise_for_status()
    admin.put(
        f"sys/policies/acl/{role}", json={"policy": f'path "identity/oidc/token/{role}" {{ capabilities = ["read"] }}'}
    ).raise_for_status()
    admin.post(f"identity/entity/id/{human.id}", json={"policies": [role]}).raise_for_status()
    answer = httpx.get(
        f"{human.vault}/v1/identity/oidc/token/{role}", headers={"X-Vault-Token": human.token}, trust_env=False, verify=NO_TLS
    )
    answer.raise_for_status()
    return str(answer.json()["data"]["token"])


def disable(admin: httpx.Client, human: Human, *, disabled: bool) -> None:
    admin.post(f"identity/entity/id/{human.id}", json={"disabled": disabled}).raise_for_status()


async def verify_bearer(deps: Deps, bearer: dict[str, str], **changes: Any) -> Caller:
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
        vault = ConsoleVault(deps.settings)
        try:
            return await TokenVerifier(replace(deps, **changes), vault, client).verify(bearer["Authorization"])
        finally:
            vault.close()


def expect_401(answer: httpx.Response, why: str) -> None:
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert why in answer.json()["detail"]


async def test_whoami_returns_the_person_of_a_fresh_token(served: Served) -> None:
    answer = await served.get("/whoami", "lead")
    assert answer.status_code == 200
    assert answer.json() == {
        "id": served.people["lead"].id,
        "name": "lead",
        "groups": ["support-leads"],
        "roles": ["approve"],
        "tier": 1,
        "installation": "dev",
    }


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Basic b3BzOm9wcw==", "Bearer not.a.token", "Bearer a.b", "Bearer a.b.c.d", "Bearer " + "a" * 9000]
)
async def test_a_text_that_is_not_a_token_is_refused(served: Served, header: str | None) -> None:
    answer = await whoami(served, header)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_stranger_is_refused_before_the_body_is_read(served: Served) -> None:
    answer = await served.http.post("/api/v1/jobs", content=b"{not json", headers={"Content-Type": "application/json"})
    expect_401(answer, "identity token")


async def test_vaults_own_token_is_not_an_identity_token(served: Served) -> None:
    expect_401(await whoami(served, f"Bearer {served.people['ops'].token}"), "cannot be parsed")


async def test_an_expired_token_is_refused(settings: Settings, served: Served) -> None:
    bearer = served.people["ops"].bearer
    assert (await verify_bearer(served.console.deps, bearer)).person.name == "ops"
    with pytest.raises(Unauthenticated, match="has expired"):
        await verify_bearer(served.console.deps, bearer, now=lambda: datetime.now(UTC) + timedelta(minutes=15, seconds=11))


async def test_a_token_expires_by_vaults_clock(settings: Settings, served: Served) -> None:
    """Vault has dated it. A console whose own clock is slow must not accept it for longer."""
    bearer, later = served.people["ops"].bearer, datetime.now(UTC) + timedelta(hours=1)
    async with build_console(settings) as console:
        clock = console.deps.vault.clock
        clock.note(later.timestamp(), sent=clock.steady())
        with pytest.raises(Unauthenticated, match="has expired"):
            await console.token_verifier.verify(bearer["Authorization"])


async def test_a_token_from_the_future_is_refused(settings: Settings, served: Served) -> None:
    with pytest.raises(Unauthenticated, match="iat"):
        await verify_bearer(served.console.deps, served.people["ops"].bearer, now=lambda: datetime.now(UTC) - timedelta(minutes=1))


async def test_a_token_of_another_issuer_is_refused(settings: Settings, served: Served) -> None:
    elsewhere = settings.model_copy(update={"vault_issuer": "https://vault.example/v1/identity/oidc"})
    with pytest.raises(Unauthenticated, match="iss"):
        await verify_bearer(served.console.deps, served.people["ops"].bearer, settings=elsewhere)


async def test_a_token_for_another_audience_is_refused(served: Served, admin: httpx.Client) -> None:
    token = issue_token(admin, served.people["nobody"], "other-audience", client_id="other", ttl="10m")
    await _refresh_keys(served, token)
    expect_401(await whoami(served, f"Bearer {token}"), "`aud`")


async def test_a_token_that_lives_too_long_is_refused(served: Served, admin: httpx.Client) -> None:
    token = issue_token(admin, served.people["nobody"], "long-lived", client_id="je-console", ttl="1h")
    await _refresh_keys(served, token)
    expect_401(await whoami(served, f"Bearer {token}"), "valid for longer than 15 minutes")


async def test_a_token_under_a_self_made_key_is_refused(served: Served, settings: Settings) -> None:
    own = OKPKey.generate_key("Ed25519")
    said = claims(served.people["ops"], settings.issuer)
    expect_401(await whoami(served, f"Bearer {forge_token(own, said, kid='mine')}"), "not signed by")
    published = await _vault_keys(settings)
    expect_401(await whoami(served, f"Bearer {forge_token(own, said, kid=published[0]['kid'])}"), "signature is not valid")


async def test_a_token_signed_with_the_public_key_as_a_shared_secret_is_refused(served: Served, settings: Settings) -> None:
    published = (await _vault_keys(settings))[0]
    said = claims(served.people["ops"], settings.issuer)
    token = forge_token(OctKey.import_key(published["x"]), said, kid=published["kid"], alg="HS256")
    expect_401(await whoami(served, f"Bearer {token}"), "the token is not valid")


async def test_a_foreign_vaults_token_is_refused(served: Served, settings: Settings) -> None:
    with run_foreign_vault() as vault:
        vault.post("sys/auth/userpass", json={"type": "userpass"}).raise_for_status()
        vault.post("auth/userpass/users/ops", json={"password": "p"}).raise_for_status()
        vault.post("identity/oidc/config", json={"issuer": settings.vault_addr}).raise_for_status()
        vault.post("identity/oidc/key/je", json={"allowed_client_ids": ["*"], "algorithm": "EdDSA"}).raise_for_status()
        vault.post("identity/oidc/role/je-console", json={"key": "je", "client_id": "je-console", "ttl": "10m"}).raise_for_status()
        login = vault.post("auth/userpass/login/ops", json={"password": "p"}).raise_for_status().json()["auth"]
        policy = {"policy": 'path "identity/oidc/token/*" { capabilities = ["read"] }'}
        vault.put("sys/policies/acl/draw", json=policy).raise_for_status()
        vault.post(f"identity/entity/id/{login['entity_id']}", json={"policies": ["draw"]}).raise_for_status()
        answer = vault.get("identity/oidc/token/je-console", headers={"X-Vault-Token": login["client_token"]}).raise_for_status()
        expect_401(await whoami(served, f"Bearer {answer.json()['data']['token']}"), "not signed by")


async def test_a_disabled_person_is_refused_within_seconds(served: Served, settings: Settings, admin: httpx.Client) -> None:
    nobody = served.people["nobody"]
    bearer = nobody.bearer
    disable(admin, nobody, disabled=True)
    try:
        with pytest.raises(Unauthenticated, match="unknown or disabled"):
            await verify_bearer(served.console.deps, bearer)
    finally:
        disable(admin, nobody, disabled=False)


async def test_without_vault_nobody_is_authenticated_and_nothing_breaks(served: Served, settings: Settings) -> None:
    bearer = served.people["ops"].bearer
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        gone = settings.model_copy(update={"vault_addr": f"http://127.0.0.1:{silent.getsockname()[1]}"})
        from console.services.console import build_console

        async with build_console(gone) as console, serve_console(console) as http:
            answer = await http.get("/api/v1/whoami", headers=bearer)
            assert answer.status_code == 503
            assert "retry-after" in answer.headers
            assert (await http.get("/livez")).status_code == 200
            ready = await http.get("/readyz")
            assert ready.status_code == 503
            assert {check["name"]: check["ok"] for check in ready.json()["checks"]} == {
                "store": True,
                "temporal": True,
                "vault": False,
                "workers": False,
            }


async def test_only_calls_that_reduce_access_accept_vaults_last_known_answer(
    served: Served, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    door, ops, lead = Door(urlsplit(settings.vault_addr).port or 80), served.people["ops"], served.people["lead"]
    vault = ConsoleVault(settings.model_copy(update={"vault_addr": f"http://127.0.0.1:{door.port}"}))
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
        verifier, bearer = TokenVerifier(served.console.deps, vault, client), ops.bearer["Authorization"]
        known = await verifier.verify(bearer)
        monkeypatch.setattr("console.auth.tokens.KEYS_TTL_S", 0.0)
        monkeypatch.setattr("console.auth.vault_directory.CACHE_TTL_S", 0.0)
        with door.closed():
            with pytest.raises(RetryLater):
                await verifier.verify(bearer)
            assert await verifier.verify(bearer, allow_last_known=True) == known
            # Nothing is known about somebody who has never called the console.
            with pytest.raises(RetryLater):
                await verifier.verify(lead.bearer["Authorization"], allow_last_known=True)
    vault.close()
    door.close()


async def _vault_keys(settings: Settings) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
        answer = await client.get(f"{settings.vault_addr}/v1/identity/oidc/.well-known/keys")
        keys = [key for key in answer.json()["keys"] if key["kty"] == "OKP"]
        assert KeySet.import_key_set({"keys": keys})
        return keys


async def _refresh_keys(served: Served, token: str) -> None:
    """A key that Vault has just made is looked for again only after a pause."""
    kid = jwt_header(token)["kid"]
    keys = served.console.token_verifier._keys
    keys._cache.forget(keys._url)
    await keys.key_set(kid)


def jwt_header(token: str) -> dict[str, Any]:
    from joserfc import jws

    return dict(jws.extract_compact(token.encode()).headers())


@contextlib.contextmanager
def run_foreign_vault() -> Iterator[httpx.Client]:
    """Another organisation's Vault, in memory."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        str(Programs().vault()),
        "server",
        "-dev",
        "-dev-root-token-id=root",
        f"-dev-listen-address=127.0.0.1:{port}",
        "-dev-no-store-token",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}/v1/", headers={"X-Vault-Token": "root"}, trust_env=False, verify=NO_TLS
        ) as client:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    if client.get("sys/health").status_code == 200:
                        break
            yield client
    finally:
        process.terminate()
        process.wait(10)
