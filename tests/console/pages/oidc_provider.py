"""An identity provider for tests: OpenBao's own, on the real server. One call with the user's token replaces its page."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from tests.support.plain_http import NO_TLS

MOUNT = "pages-oidc"
USERS = "provider-users"
"""Where people log in at the provider; at a real one that is none of Vault's business."""
MAX_AGE = 3
"""Seconds that a login at the provider may be old where a fresh one is wanted."""
TOKEN = {
    "token_policies": ["je-person"],
    "token_no_default_policy": True,
    "token_type": "service",
    "token_ttl": "45m",
    "token_max_ttl": "8h",
}


@dataclass(frozen=True)
class Provider:
    """The provider and its logged-in people."""

    address: str
    passwords: dict[str, str]

    @classmethod
    async def provision(cls, admin: httpx.AsyncClient, redirects: list[str], passwords: dict[str, str], *, front: str = "") -> Provider:
        """Provider, client, auth mount and roles for logins that come back to these addresses. Again is fine.

        `front`: where people and Vault reach the provider, if not at Vault itself.
        """
        address = str(admin.base_url).removesuffix("/v1/")
        issuer = front or address
        await write_vault(admin, "identity/oidc/key/provider", algorithm="RS256", allowed_client_ids=["*"])
        await write_vault(admin, "identity/oidc/client/pages", key="provider", redirect_uris=redirects, assignments=["allow_all"])
        client = (await admin.get("identity/oidc/client/pages")).raise_for_status().json()["data"]
        await write_vault(admin, "identity/oidc/scope/user", template='{"username": {{identity.entity.name}}}')
        await write_vault(
            admin, "identity/oidc/provider/tests", issuer=issuer, allowed_client_ids=[client["client_id"]], scopes_supported=["user"]
        )
        for mount, kind in ((MOUNT, "oidc"), (USERS, "userpass")):
            if f"{mount}/" not in (await admin.get("sys/auth")).raise_for_status().json()["data"]:
                await write_vault(admin, f"sys/auth/{mount}", type=kind)
        where = f"{issuer}/v1/identity/oidc/provider/tests"
        secret = client["client_secret"]
        await write_vault(
            admin, f"auth/{MOUNT}/config", oidc_discovery_url=where, oidc_client_id=client["client_id"], oidc_client_secret=secret
        )
        role = {"role_type": "oidc", "user_claim": "username", "oidc_scopes": ["user"], "allowed_redirect_uris": redirects, **TOKEN}
        await write_vault(admin, f"auth/{MOUNT}/role/pages", **role)
        await write_vault(admin, f"auth/{MOUNT}/role/pages-fresh", **role, max_age=MAX_AGE)
        accessors = (await admin.get("sys/auth")).json()["data"]
        for name in ("lead", "chief"):
            await write_vault(admin, f"auth/{USERS}/users/{name}", password=passwords[name], token_policies=["default"])
            entity = (await admin.get(f"identity/entity/name/{name}")).raise_for_status().json()["data"]["id"]
            for mount in (MOUNT, USERS):
                await write_vault(
                    admin, "identity/entity-alias", name=name, canonical_id=entity, mount_accessor=accessors[f"{mount}/"]["accessor"]
                )
        await write_vault(admin, f"auth/{USERS}/users/stranger", password=passwords["lead"], token_policies=["default"])
        return cls(address, passwords)

    async def log_in(self, name: str) -> str:
        """Log a person in at the provider; return their token there."""
        async with httpx.AsyncClient(base_url=self.address, trust_env=False, verify=NO_TLS) as vault:
            answer = await vault.post(f"/v1/auth/{USERS}/login/{name}", json={"password": self.passwords.get(name, self.passwords["lead"])})
            return str(answer.raise_for_status().json()["auth"]["client_token"])

    async def until_older_than(self, token: str, seconds: int) -> None:
        """Wait until Vault reports that a login is older than this."""
        async with httpx.AsyncClient(base_url=self.address, trust_env=False, verify=NO_TLS) as vault:
            while True:
                answer = await vault.get("/v1/auth/token/lookup-self", headers={"X-Vault-Token": token})
                data = answer.raise_for_status().json()["data"]
                if data["creation_ttl"] - data["ttl"] > seconds + 1:
                    return
                await asyncio.sleep(0.1)

    async def redirect(self, url: str, token: str) -> tuple[str, dict[str, Any]]:
        """Act as the provider's page for a logged-in person; return the redirect's address and the provider's response."""
        parts = urlsplit(url)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        path = parts.path.replace("/ui/vault/", "/v1/")
        async with httpx.AsyncClient(base_url=self.address, trust_env=False, verify=NO_TLS) as vault:
            answer = await vault.get(path, params=asked, headers={"X-Vault-Token": token})
        said: dict[str, Any] = answer.json()
        if answer.status_code == 200:
            return f"{asked['redirect_uri']}?{urlencode({'code': said['code'], 'state': said['state']})}", said
        return f"{asked['redirect_uri']}?{urlencode({'error': said.get('error', ''), 'state': asked['state']})}", said


async def write_vault(admin: httpx.AsyncClient, path: str, **data: Any) -> None:
    """Write to Vault as its administrator."""
    answer = await admin.post(path, json=data)
    assert answer.is_success, (path, answer.text)
