"""What the console publishes for verifying jobs' identities: the issuer and its keys, even while Vault does not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from joserfc.jwk import KeySet

from console.auth import vault_keys
from console.auth.vault_directory import ConsoleVault
from console.services.console import build_console
from justenough.adapters.configuration.settings import Settings
from justenough.domain.integrations.job_identity import CLAIMS
from tests.activities.tcp_door import Door
from tests.console.api.test_http import expect_problem
from tests.console.served_console import Served, serve_console

KEYS, DISCOVERY = "/.well-known/jwks.json", "/.well-known/openid-configuration"


@pytest.fixture
def door(settings: Settings) -> Iterator[Door]:
    """In front of Vault, so that a test can take it away."""
    opened = Door(int(settings.vault_addr.rpartition(":")[2]))
    yield opened
    opened.close()


@pytest.fixture
def key_reads(monkeypatch: pytest.MonkeyPatch) -> list[ConsoleVault]:
    """Grows by one with each look at Vault's keys."""
    seen: list[ConsoleVault] = []
    read = ConsoleVault.identity_keys

    def counted(vault: ConsoleVault) -> dict[int, bytes]:
        seen.append(vault)
        return read(vault)

    monkeypatch.setattr(ConsoleVault, "identity_keys", counted)
    return seen


def write_vault(admin: httpx.Client, path: str, **body: object) -> None:
    """Write something as Vault's administrator."""
    admin.post(path, json=body).raise_for_status()


def read_vault(admin: httpx.Client, path: str) -> dict[str, Any]:
    found: dict[str, Any] = admin.get(path).raise_for_status().json()["data"]
    return found


@asynccontextmanager
async def start_console(settings: Settings, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A console of a test's own."""
    async with build_console(settings.model_copy(update=changes)) as console, serve_console(console) as http:
        yield http


async def key_ids(http: httpx.AsyncClient) -> list[str]:
    return [key["kid"] for key in (await http.get(KEYS)).raise_for_status().json()["keys"]]


async def test_anyone_can_read_the_public_keys_and_nothing_else(served: Served, admin: httpx.Client) -> None:
    answer = await served.http.get(KEYS)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "public, max-age=60"
    assert answer.headers["x-content-type-options"] == "nosniff"
    held = read_vault(admin, "transit/keys/je-jobs")["keys"]
    told = answer.json()["keys"]
    assert len(told) == len(held)
    assert {key["kid"] for key in told} == {f"je-jobs-v{version}" for version in held}
    assert all(key.keys() == {"kty", "crv", "x", "kid", "use", "alg"} for key in told)
    assert [key.key_type for key in KeySet.import_key_set(answer.json()).keys] == ["OKP"] * len(told)


async def test_every_valid_key_version_is_published_and_no_withdrawn_one(
    settings: Settings, admin: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault_keys, "IDENTITY_KEYS_TTL_S", 0.0)
    monkeypatch.setattr(vault_keys, "RETRY_INTERVAL_S", 0.0)
    async with start_console(settings) as http:
        before = await key_ids(http)
        newest = len(before) + 1
        write_vault(admin, "transit/keys/je-jobs/rotate")
        assert await key_ids(http) == [*before, f"je-jobs-v{newest}"]
        try:
            write_vault(admin, "transit/keys/je-jobs/config", min_decryption_version=newest)
            assert await key_ids(http) == [f"je-jobs-v{newest}"]
        finally:
            write_vault(admin, "transit/keys/je-jobs/config", min_decryption_version=1)


async def test_without_vault_the_last_known_keys_are_published_from_the_cache(
    settings: Settings, door: Door, key_reads: list[ConsoleVault], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start_console(settings, vault_addr=f"http://127.0.0.1:{door.port}") as http:
        known = await key_ids(http)
        assert [await key_ids(http) for _ in range(3)] == [known] * 3
        assert len(key_reads) == 1, "what is fresh is not asked for"
        door.close()
        monkeypatch.setattr(vault_keys, "IDENTITY_KEYS_TTL_S", 0.0)
        with monkeypatch.context() as later:
            later.setattr(vault_keys, "RETRY_INTERVAL_S", 0.0)
            assert await key_ids(http) == known
        assert [await key_ids(http) for _ in range(3)] == [known] * 3
        assert len(key_reads) == 2, "a look that failed is not followed by another at once"


async def test_a_vault_that_hangs_delays_no_caller_for_long(
    settings: Settings, door: Door, key_reads: list[ConsoleVault], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start_console(settings, vault_addr=f"http://127.0.0.1:{door.port}") as http:
        known = await key_ids(http)
        door.hang()
        monkeypatch.setattr(vault_keys, "IDENTITY_KEYS_TTL_S", 0.0)
        monkeypatch.setattr(vault_keys, "RETRY_INTERVAL_S", 0.0)
        monkeypatch.setattr(vault_keys, "READ_TIMEOUT_S", 0.2)
        assert [await key_ids(http) for _ in range(3)] == [known] * 3
        assert len(key_reads) == 2, "one look at a time, however many ask"
        door.open()


async def test_keys_that_were_never_read_are_a_503_until_vault_is_back(
    settings: Settings, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault_keys, "RETRY_INTERVAL_S", 0.0)
    door.close()
    async with start_console(settings, vault_addr=f"http://127.0.0.1:{door.port}") as http:
        answer = await http.get(KEYS)
        expect_problem(answer, 503)
        assert "the key je-jobs has not been read from Vault yet" in answer.json()["detail"]
        assert answer.headers["retry-after"]
        assert answer.headers["cache-control"] == "no-store"
        door.open()
        assert await key_ids(http)


async def test_a_console_that_may_not_read_the_keys_names_the_command_that_allows_it(settings: Settings, admin: httpx.Client) -> None:
    policy = read_vault(admin, "sys/policies/acl/je-console")["policy"]
    write_vault(admin, "sys/policies/acl/je-console", policy=policy.replace('"transit/keys/je-jobs"', '"transit/keys/none"'))
    try:
        async with start_console(settings) as http:
            answer = await http.get(KEYS)
            expect_problem(answer, 503)
            assert "`justenough vault setup`" in answer.json()["detail"]
    finally:
        write_vault(admin, "sys/policies/acl/je-console", policy=policy)


async def test_discovery_names_the_issuer_the_address_of_the_keys_and_the_claims(settings: Settings) -> None:
    async with start_console(settings, job_issuer="https://je.example/jobs/") as http:
        answer = await http.get(DISCOVERY)
        assert answer.headers["cache-control"] == "public, max-age=60"
        assert answer.json() == {
            "issuer": "https://je.example/jobs",
            "jwks_uri": "https://je.example/jobs/.well-known/jwks.json",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["EdDSA"],
            "claims_supported": list(CLAIMS),
        }


async def test_the_setting_is_named_if_no_issuer_is_configured(settings: Settings) -> None:
    async with start_console(settings, job_issuer=None, console_url=None) as http:
        answer = await http.get(DISCOVERY)
        expect_problem(answer, 404)
        assert "JUSTENOUGH_JOB_ISSUER" in answer.json()["detail"]


async def test_openapi_describes_both_responses_without_a_token(served: Served) -> None:
    document = (await served.http.get("/openapi.json")).json()
    for path, statuses in ((KEYS, {"200", "500", "503"}), (DISCOVERY, {"200", "404", "500", "503"})):
        operation = document["paths"][path]["get"]
        assert set(operation["responses"]) == statuses
        assert "security" not in operation
