"""Sets OpenBao up for docker-compose.yml, at each `docker compose up`: initialises it once, then writes what the catalog and people.yaml need.

    setup.py          set up OpenBao; change only what differs
    setup.py people   print who can log in, with their passwords
    setup.py ca       print the certificate of the CA that signed OpenBao's

Its volume has the recovery key, its own login, and people's passwords. No other service sees it. The root token is revoked once there is a
login that later runs can use: an AppRole with the policy je-setup, which may do everything that an administrator may.
"""

from __future__ import annotations

import json
import os
import secrets
import ssl
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import httpx
import yaml
from pydantic import StringConstraints, TypeAdapter, ValidationError

from justenough.adapters.configuration.settings import Settings, load_settings
from justenough.adapters.runtime.private_files import read_json, write_private
from justenough.domain.core.errors import JustEnoughError
from justenough.domain.core.secret import Secret
from justenough.domain.core.validation_messages import describe_error
from worker.provisioning.admin_client import WriteOutcome
from worker.provisioning.setup import PersonSeed, VaultTarget, provision_vault

SECRETS = Path("/run/secrets/setup")
KEYS, LOGIN, PEOPLE = SECRETS / "recovery.json", SECRETS / "setup.approle.json", SECRETS / "people.json"
ACTIVE_TIMEOUT_S = 60
"""How long a node that was just initialised may take to elect itself."""
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$", strict=True)]
PEOPLE_FILE: TypeAdapter[dict[str, tuple[str, ...]]] = TypeAdapter(dict[Name, tuple[Name, ...]])
"""Login names, and the groups of each."""
POLICY = 'path "*" { capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"] }'


class SetupFailed(Exception):
    """OpenBao cannot be set up. The message says what to do."""


class OpenBao:
    """OpenBao's API, with a token."""

    def __init__(self, settings: Settings) -> None:
        verify = ssl.create_default_context(cafile=settings.vault_cacert)
        self._http = httpx.Client(base_url=f"{settings.vault_addr}/v1/", verify=verify, timeout=30, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, token: str | None = None) -> dict[str, Any]:
        """Return the answer. Raises SetupFailed with OpenBao's own words."""
        answer = self._http.request(method, path, json=body, headers={"X-Vault-Token": token} if token else {})
        if answer.is_error:
            message = f"OpenBao refuses {method} {path}: {answer.status_code} {answer.text.strip()}"
            raise SetupFailed(message)
        return dict(answer.json()) if answer.content else {}

    def knows(self, token: str) -> bool:
        """Whether this token is valid."""
        return self._http.get("auth/token/lookup-self", headers={"X-Vault-Token": token}).is_success

    def wait_until_active(self) -> None:
        """Return once the node serves requests."""
        deadline = time.monotonic() + ACTIVE_TIMEOUT_S
        while self._http.get("sys/health").status_code != httpx.codes.OK:
            if time.monotonic() > deadline:
                message = "OpenBao does not become active; see: docker compose logs openbao"
                raise SetupFailed(message)
            time.sleep(0.2)


def main(command: str) -> None:
    if command == "people":
        print_people()
    elif command == "ca":
        print((SECRETS / "ca.pem").read_text(), end="")
    elif command == "apply":
        set_up(load_settings())
    else:
        message = f"there is no command {command!r}: people or ca, or nothing to set OpenBao up"
        raise SetupFailed(message)


def print_people() -> None:
    people = read_json(PEOPLE)
    if not people:
        message = (
            "nobody has a password here: start everything first (docker compose up --wait), with a people.yaml in the configuration folder"
        )
        raise SetupFailed(message)
    print("\n".join(f"{name:<12} {entry['password']}" for name, entry in people.items()))


def set_up(settings: Settings) -> None:
    people = people_of(settings.config)
    environment = {**os.environ, "NOTES_VAULT_PASSWORD": (SECRETS / "vault").read_text()}
    with closing(OpenBao(settings)) as bao:
        initialise(bao)
        bao.wait_until_active()
        token = log_in(bao)
        try:
            done = provision_vault(VaultTarget(settings, admin_token=Secret(token), people=people, environment=environment))
        finally:
            bao.call("POST", "auth/token/revoke-self", token=token)
    for write in done:
        if write.note:
            print(f"{write.outcome:<9} {write.path}: {write.note}")
    written = [write for write in done if write.outcome in {WriteOutcome.CREATED, WriteOutcome.CHANGED}]
    print(f"OpenBao is set up: {len(written)} of {len(done)} objects written.")


def initialise(bao: OpenBao) -> None:
    """Initialise a new OpenBao, and keep its keys before anything else is done with them."""
    if bao.call("GET", "sys/init")["initialized"]:
        return
    keys = bao.call("PUT", "sys/init", {"recovery_shares": 1, "recovery_threshold": 1})
    write_private(KEYS, json.dumps({"recovery_key": keys["recovery_keys_base64"][0], "root_token": keys["root_token"]}))


def log_in(bao: OpenBao) -> str:
    """Return an administrator's token that lasts some minutes. The first run creates the login for it, and revokes the root token."""
    keys = read_json(KEYS)
    root = keys.get("root_token")
    if root and bao.knows(root):
        if not LOGIN.exists():
            make_login(bao, root)
        bao.call("POST", "auth/token/revoke-self", token=root)
    if root:
        write_private(KEYS, json.dumps({"recovery_key": keys["recovery_key"]}))
    if not LOGIN.exists():
        message = (
            f"OpenBao was initialised, but {LOGIN} is missing: restore the volume secrets-setup from a backup, "
            "or remove everything and start again: docker compose down --volumes"
        )
        raise SetupFailed(message)
    return str(bao.call("POST", "auth/approle/login", read_json(LOGIN))["auth"]["client_token"])


def make_login(bao: OpenBao, root: str) -> None:
    bao.call("PUT", "sys/policies/acl/je-setup", {"policy": POLICY}, token=root)
    if "approle/" not in bao.call("GET", "sys/auth", token=root)["data"]:
        bao.call("POST", "sys/auth/approle", {"type": "approle"}, token=root)
    # Nobody can guess a secret id, and a lock after wrong ones would keep out whoever has the right one.
    bao.call("POST", "sys/auth/approle/tune", {"user_lockout_config": {"lockout_disable": True}}, token=root)
    role = "auth/approle/role/je-setup"
    bao.call(
        "POST",
        role,
        {"token_policies": ["je-setup"], "token_no_default_policy": True, "token_ttl": "10m", "token_max_ttl": "10m"},
        token=root,
    )
    role_id = bao.call("GET", f"{role}/role-id", token=root)["data"]["role_id"]
    secret_id = bao.call("POST", f"{role}/secret-id", token=root)["data"]["secret_id"]
    write_private(LOGIN, json.dumps({"role_id": role_id, "secret_id": secret_id}))


def people_of(config: Path) -> dict[str, PersonSeed] | None:
    """Return the people of people.yaml with their passwords, created for new people; None if there is no such file."""
    file = config / "people.yaml"
    if not file.exists():
        return None
    try:
        groups = PEOPLE_FILE.validate_python(yaml.safe_load(file.read_text()))
    except (yaml.YAMLError, ValidationError):
        message = "people.yaml: write one line for each person, like `ops: [ops, auditors]`, in lower case, digits and hyphens"
        raise SetupFailed(message) from None
    known = read_json(PEOPLE)
    passwords = {name: str(known.get(name, {}).get("password") or secrets.token_urlsafe(18)) for name in groups}
    write_private(PEOPLE, json.dumps({name: {"password": password} for name, password in passwords.items()}))
    return {name: PersonSeed(password=Secret(passwords[name]), groups=groups[name]) for name in groups}


if __name__ == "__main__":
    try:
        main((sys.argv[1:] or ["apply"])[0])
    except ValidationError as error:
        sys.exit("\n".join(f"setup: setting {problem['loc'][0]}: {describe_error(problem)}" for problem in error.errors()))
    except (SetupFailed, JustEnoughError, httpx.HTTPError, OSError) as error:
        sys.exit(f"setup: {error}")
