"""The writes that set up an empty Vault, as files for a team that applies them itself: with `bao` or `vault`, or with Terraform.

Contacts no Vault. Values that only Vault knows (ids, accessors), and values that only the environment has (`${NAME}` of the catalog), are
references.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

from justenough.domain.core.placeholders import SETTING_PLACEHOLDER
from justenough.domain.core.secret import Secret
from worker.provisioning.admin_client import AppliedWrite, WriteOutcome
from worker.provisioning.mounts import LONGEST_LIFE_PATH, NEEDED_LIFE_S, SHARED_PATHS, mount_table
from worker.provisioning.plan import PlanningClient
from worker.provisioning.policies import admin_policy

POLICY_PREFIX = "sys/policies/acl/"
REFERENCE = re.compile(r"\$\{([^{}#]+)#([a-z_]+)\}")
"""Matches a field that Vault fills in: `${PATH#FIELD}`."""
ExportFormat = Literal["hcl", "terraform"]
RANDOM = "random"
"""The variable that stands for a new random text in each write."""
SHARED_DESCRIPTION = "Also write what everybody in the Vault shares. The longest life of tokens becomes eight days, even if it was longer."
"""Of Terraform's variable `change_shared`."""
MOUNT_RIGHTS = ("create", "read", "sudo", "update")
"""The capabilities that `sys/auth/…` needs. Mounts of secrets engines do not need sudo, but there it grants nothing more."""


@dataclass(frozen=True, slots=True)
class ExportedWrite:
    """One write, and the condition under which it is skipped."""

    path: str
    data: Mapping[str, Any]
    once: bool = False
    """The write is skipped if the path exists."""
    unless: str | None = None
    """The write is skipped if this path lists anything."""

    @property
    def policy(self) -> str | None:
        """The name of the policy that this writes; None if it writes something else."""
        return self.path.removeprefix(POLICY_PREFIX) if self.path.startswith(POLICY_PREFIX) else None


class ExportingClient(PlanningClient):
    """Collects the writes for an empty Vault in which people can log in already. Contacts no Vault."""

    def __init__(self, *, people_mounts: Sequence[str]) -> None:
        super().__init__("http://vault.invalid", Secret(""), names={})
        self._people_mounts = people_mounts
        self.writes: list[ExportedWrite] = []
        self.capabilities: dict[str, set[str]] = {}
        """By path, the capabilities that an administrator needs to do the same on a real Vault."""

    def __enter__(self) -> Self:
        """Ask no Vault whether its standbys forward."""
        return self

    def list(self, path: str) -> tuple[str, ...]:
        """Return nothing: the Vault is empty."""
        self._add_rights(path, "list")
        return ()

    def query(self, path: str, data: Mapping[str, Any]) -> dict[str, Any]:
        del data
        self._add_rights(path, "update")
        return {}

    def has_path(self, path: str, data: Mapping[str, Any]) -> bool:
        """Return True: assume that Vault supports what the catalog needs. If it does not, applying the files fails."""
        self.query(path, data)
        return True

    def write_once(self, path: str, data: Mapping[str, Any]) -> AppliedWrite:
        self._add_rights(path, "read")
        self._collect(ExportedWrite(path, data, once=True))
        return AppliedWrite(path, WriteOutcome.CREATED)

    def write_unless(self, listed: str, path: str, data: Mapping[str, Any]) -> AppliedWrite:
        self._add_rights(listed, "list")
        self._collect(ExportedWrite(path, data, unless=listed))
        return AppliedWrite(path, WriteOutcome.CREATED)

    def write_login(self, role: str, file: Path, *, role_id: str, current: Mapping[str, Any]) -> None:
        """Write no file: the person who applies the files creates the secret id."""
        del file, role_id, current
        self._add_rights(f"{role}/secret-id", "update")
        self._add_rights(f"{role}/secret-id/lookup", "update")

    def _read_current(self, path: str) -> dict[str, Any] | None:
        self._add_rights(path, "read")
        if path != "sys/auth":
            return None
        # With this type, what is asked about real mounts for people is asked here, too.
        return {
            f"{name}/": {"type": "userpass", "accessor": self._later(f"sys/auth/{name}", "accessor")}
            for name in ("token", *self._people_mounts)
        }

    def _later(self, path: str, field: str) -> str:
        self._add_rights(path, "read")
        return f"${{{path}#{field}}}"

    def _remember(self, path: str, readable: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        super()._remember(path, readable, data)
        self._collect(ExportedWrite(path, data, once=mount_table(path) is not None))

    def _collect(self, write: ExportedWrite) -> None:
        self.writes.append(write)
        self._add_rights(write.path, "create", "read", "update")

    def _add_rights(self, path: str, *capabilities: str) -> None:
        path = REFERENCE.sub("*", path)
        if path.startswith("sys/auth/"):
            capabilities = MOUNT_RIGHTS
        self.capabilities.setdefault(path, set()).update(capabilities)


def export_files(client: ExportingClient, form: ExportFormat, *, roles: Sequence[str]) -> dict[str, str]:
    """Return the files by their path in the folder. `roles`: the AppRoles whose login files are created afterwards."""
    # The setup also searches for policies that the catalog no longer names.
    needed = {path: sorted(capabilities) for path, capabilities in client.capabilities.items()}
    needed[f"{POLICY_PREFIX}je-*"] = ["create", "read", "update"]
    # A role that somebody deleted gets its id back.
    needed |= {f"auth/approle/role/{role}/role-id": ["read", "update"] for role in roles}
    # So are leases at paths that have left the catalog.
    needed["sys/leases/lookup/*"] = ["list", "sudo"]
    # An AppRole mount without roles is one that an interrupted setup made.
    needed["auth/approle/role"] = ["list"]
    files = {"je-admin.hcl": admin_policy(needed)}
    if form == "terraform":
        return {**files, "main.tf.json": _terraform(client.writes)}
    script = _Script(client.writes)
    return {**files, **script.files, "apply.sh": script.text(roles)}


def variables_of(writes: Sequence[ExportedWrite]) -> list[str]:
    """Return the names of the environment variables that the writes need."""
    return sorted({name for write in writes for name in SETTING_PLACEHOLDER.findall(json.dumps([write.path, write.data]))} - {RANDOM})


class _Script:
    """A shell script that makes the writes, and the files that it reads."""

    def __init__(self, writes: Sequence[ExportedWrite]) -> None:
        self.files: dict[str, str] = {}
        self._variables = variables_of(writes)
        self._references: dict[tuple[str, str], str] = {}
        self._lines = [line for write in writes for line in self._lines_of(write)]

    def text(self, roles: Sequence[str]) -> str:
        """Return the script. It ends with the login files of these AppRoles, unless they exist."""
        head = (files(__package__) / "apply.sh").read_text(encoding="utf-8").replace("@VARIABLES@", " ".join(self._variables))
        logins = (f'login_file "{role}" "{role.removeprefix("je-")}.approle.json"' for role in roles)
        return head + "\n".join((*self._lines, *logins)) + "\n"

    def _lines_of(self, write: ExportedWrite) -> Iterator[str]:
        if write.policy is not None:
            file = f"policies/{write.policy}.hcl"
            self.files[file] = str(write.data["policy"])
            yield f'put_policy "{write.policy}" "{file}"'
            return
        text = json.dumps(dict(write.data), indent=2, ensure_ascii=False) + "\n"
        for match in REFERENCE.finditer(json.dumps([write.path]) + text):
            if match.groups() not in self._references:
                name = self._references[match[1], match[2]] = f"JE_REF_{len(self._references) + 1}"
                yield f'{name}=$(field "{self._with_shell_variables(match[1])}" {match[2]})\nexport {name}'
        file = f"objects/{len(self.files) + 1:03}-{REFERENCE.sub('ID', write.path).replace('/', '-')}.json"
        self.files[file], path = self._with_shell_variables(text), self._with_shell_variables(write.path)
        if write.unless is not None:
            yield f'put_unless "{write.unless}" "{path}" "{file}"'
        elif write.path == LONGEST_LIFE_PATH:
            yield f'raise_shared "{path}" max_lease_ttl {NEEDED_LIFE_S} "{file}"'
        else:
            how = "put_shared" if write.path in SHARED_PATHS else "put_once" if write.once else "put"
            yield f'{how} "{path}" "{file}"'

    def _with_shell_variables(self, text: str) -> str:
        return REFERENCE.sub(lambda match: f"${{{self._references[match[1], match[2]]}}}", text)


@dataclass
class _Terraform:
    """A configuration in Terraform's JSON syntax. Each resource depends on the one before it, because the order matters."""

    document: dict[str, Any] = field(default_factory=dict)
    references: dict[tuple[str, str], str] = field(default_factory=dict)
    newest: str | None = None

    def add(self, kind: str, name: str, body: dict[str, Any], *, data: bool = False) -> str:
        """Add a resource or a data source, and return its address."""
        section = self.document.setdefault("data" if data else "resource", {}).setdefault(kind, {})
        section[name] = {**body, **({"depends_on": [self.newest]} if self.newest else {})}
        address = f"{kind}.{name}"
        if not data:
            self.newest = address
        return f"data.{address}" if data else address

    def text_of(self, text: str, *, random: str = "", is_json: bool = False) -> str:
        """Return a text in Terraform's template syntax, in which references and variables are expressions.

        `is_json`: it is JSON, in whose texts the values of variables must be escaped.
        """
        parts, rest = [], text
        while match := re.search(rf"{REFERENCE.pattern}|{SETTING_PLACEHOLDER.pattern}", rest):
            if match[1] is not None:
                expression = f'{self.references[match[1], match[2]]}.data["{match[2]}"]'
            else:
                variable = f'trimsuffix(trimprefix(jsonencode(var.{match[3]}), "\\""), "\\"")' if is_json else f"var.{match[3]}"
                expression = random if match[3] == RANDOM else variable
            parts += [_literal(rest[: match.start()]), f"${{{expression}}}"]
            rest = rest[match.end() :]
        return "".join((*parts, _literal(rest)))


def _literal(text: str) -> str:
    return text.replace("${", "$${").replace("%{", "%%{")


def _terraform(writes: Sequence[ExportedWrite]) -> str:
    made = _Terraform()
    providers = {"vault": {"source": "hashicorp/vault", "version": ">= 4.0"}, "random": {"source": "hashicorp/random", "version": ">= 3.0"}}
    made.document["terraform"] = {"required_providers": providers}
    made.document["variable"] = {
        **{name: {"type": "string", "sensitive": True} for name in variables_of(writes)},
        "change_shared": {"type": "bool", "default": False, "description": SHARED_DESCRIPTION},
    }
    for number, write in enumerate(writes, 1):
        name = f"w{number:03}_" + re.sub(r"[^A-Za-z0-9_]+", "_", REFERENCE.sub("id", write.path))
        if write.policy is not None:
            made.add("vault_policy", name, {"name": write.policy, "policy": made.text_of(str(write.data["policy"]))})
            continue
        text = json.dumps(dict(write.data), ensure_ascii=False)
        for match in REFERENCE.finditer(json.dumps([write.path]) + text):
            if match.groups() not in made.references:
                source = {"path": made.text_of(match[1])}
                reference = made.add("vault_generic_secret", f"r{len(made.references) + 1}", source, data=True)
                made.references[match[1], match[2]] = reference
        random = ""
        if f"${{{RANDOM}}}" in text:
            made.document.setdefault("resource", {}).setdefault("random_password", {})[name] = {"length": 44, "special": False}
            random = f"random_password.{name}.result"
        body = {
            "path": made.text_of(write.path),
            "data_json": made.text_of(text, random=random, is_json=True),
            "disable_read": True,
            "disable_delete": True,
            "ignore_absent_fields": True,
        }
        if write.path in SHARED_PATHS:
            body["count"] = "${var.change_shared ? 1 : 0}"
        if write.once or write.unless is not None:
            body["lifecycle"] = {"ignore_changes": "all"}
        made.add("vault_generic_endpoint", name, body)
    return json.dumps(made.document, indent=2, ensure_ascii=False) + "\n"
