"""The commands in the docs about people work as written, on a real Vault, in a namespace that is empty at first."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.identity_provider import serve_identity_provider
from tests.worker.provisioning.provisioned_shop import REPOSITORY, Emptied
from worker.stack.binaries import Programs

pytestmark = pytest.mark.servers

PAGES = REPOSITORY / "docs" / "how-to"
BLOCK = re.compile(r"^```(yaml|hcl|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CONTINUED = re.compile(r" \\\n *")
EXPECTED = {"justenough people plan": {2}, "justenough doctor": {0, 1}}
"""Exit codes other than 0. What doctor finds on this machine is not the page's subject."""


class PageRunner:
    """Runs a page's commands in order, in one folder. Its files are the blocks that begin with a file's name."""

    def __init__(self, empty: Emptied, folder: Path, **replaced: str) -> None:
        self.empty, self.folder, self.replaced = empty, folder, replaced

    def run(self, page: str) -> list[str]:
        """Run everything; return the commands."""
        text = (PAGES / page).read_text(encoding="utf-8")
        for old, new in self.replaced.items():
            text = text.replace(old, new)
        commands = []
        for kind, block in BLOCK.findall(text):
            if match := re.match(r"# (\S+\.(?:yaml|hcl))\n", block):
                (self.folder / match[1]).write_text(block)
            lines = CONTINUED.sub(" ", block).splitlines() if kind == "console" else []
            for command in (line.removeprefix("$ ") for line in lines if line.startswith("$ ")):
                self._run(command)
                commands.append(command)
        return commands

    def _run(self, command: str) -> None:
        settings = self.empty.settings
        env = {
            **os.environ,
            **self.empty.environment,
            "MODEL_URL": "http://127.0.0.1:8080/v1",
            # The wheel's own `bao` is a Python program that starts the real one.
            "PATH": f"{Programs().vault().parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "VAULT_ADDR": settings.vault_addr,
            "VAULT_NAMESPACE": self.empty.namespace,
            "VAULT_TOKEN": self.empty._shop.admin.token,
            "JUSTENOUGH_HOME": str(settings.home),
            "JUSTENOUGH_CONFIG": str(settings.config),
            "XDG_CONFIG_HOME": str(self.folder / "logins"),
        }
        done = subprocess.run(("bash", "-c", command), env=env, cwd=self.folder, capture_output=True, text=True, check=False)
        expected = next((codes for words, codes in EXPECTED.items() if words in command), {0})
        assert done.returncode in expected, f"{command}\n{done.stdout}{done.stderr}"


def test_the_commands_of_the_page_about_passwords_work(empty: Emptied, tmp_path: Path) -> None:
    commands = PageRunner(empty, tmp_path).run("people-userpass.md")
    assert len(commands) > 8
    ada = empty.read("identity/entity/name/ada")
    assert (ada["disabled"], len(ada["direct_group_ids"]), [alias["mount_path"] for alias in ada["aliases"]]) == (True, 1, ["auth/people/"])


def test_the_commands_of_the_page_about_people_work(empty: Emptied, tmp_path: Path) -> None:
    for mount in ("people", "people-oidc"):
        empty.write(f"sys/auth/{mount}", type="userpass")
    empty.write("identity/entity/name/eve", metadata={"made_by": "justenough-people"})
    assert len(PageRunner(empty, tmp_path).run("people.md")) > 8
    assert empty.read("identity/entity/name/eve")["disabled"]
    inner = empty.read("identity/group/name/emea-leads")["id"]
    assert empty.read("identity/group/name/support-leads")["member_group_ids"] == [inner]


def test_the_commands_of_the_page_about_identity_providers_work(empty: Emptied, tmp_path: Path) -> None:
    empty.write("sys/auth/people", type="userpass")
    (tmp_path / "client.secret").write_text("any-secret\n")
    with serve_identity_provider() as provider:
        PageRunner(empty, tmp_path, **{"https://idp.example": provider.address}).run("people-oidc.md")
    group = empty.read("identity/group/name/support-leads")
    assert (group["type"], group["alias"]["name"], group["alias"]["mount_path"]) == ("external", "Support Leads", "auth/people-oidc/")
    assert empty.read("auth/people-oidc/role/people-fresh")["max_age"] == 300
    assert [alias["name"] for alias in empty.read("identity/entity/name/ada")["aliases"] if alias["mount_path"] == "auth/people-oidc/"] == [
        "00u1b2c3"
    ]
