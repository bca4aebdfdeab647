"""The model of stack.json, which describes a running stack to other programs. The file has mode 0600 because it contains passwords."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from justenough.adapters.runtime.private_files import ensure_passwords, write_private
from justenough.domain.core.errors import GiveUp
from justenough.domain.core.validation_messages import describe_error
from worker.stack.paths import StackPaths

USER_GROUPS = {
    "ops": ("ops",),
    "lead": ("support-leads",),
    "security": ("security",),
    "chief": ("chiefs",),
    "chief2": ("chiefs",),
    "auditor": ("auditors",),
    "oncall": ("break-glass",),
}
"""The embedded stack's users and their groups."""
SERVERS = ("temporal", "vault", "postgres")
CONFIGURATION_CHILDREN = ("model",)
"""Children that only some configurations have."""
APPS = ("worker", "console")
CHILDREN = (*SERVERS, *CONFIGURATION_CHILDREN, *APPS)


class StackUnreadable(GiveUp):
    """stack.json exists but does not have this version's format."""


class StackUser(BaseModel):
    model_config = ConfigDict(frozen=True)

    password: str
    groups: tuple[str, ...]


class Stack(BaseModel):
    """A running stack: its addresses, and its users with their passwords. A server that was not started has no address."""

    model_config = ConfigDict(frozen=True)

    home: Path
    config: Path
    supervisor: int
    temporal: str | None = None
    temporal_ui: str | None = None
    vault: str | None = None
    console: str | None = None
    shop_dsn: str | None = None
    database_url: str
    admin_token_file: Path
    users: dict[str, StackUser]
    pids: dict[str, int]
    stopping: bool = False
    """Whether its supervisor has been told to stop."""

    def write(self, paths: StackPaths) -> None:
        write_private(paths.stack, self.model_dump_json(indent=1))


def read_stack(paths: StackPaths) -> Stack | None:
    """Return the content of stack.json; None if there is no such file. Raises StackUnreadable."""
    try:
        return Stack.model_validate_json(paths.stack.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        message = (
            f"{paths.stack} cannot be parsed: {describe_error(error.errors()[0])}. Stop the stack (justenough down) and start it again."
        )
        raise StackUnreadable(message) from error


def stack_users(paths: StackPaths) -> dict[str, StackUser]:
    """Return the embedded users with their passwords; create the passwords on first use."""
    passwords = ensure_passwords(paths.people, USER_GROUPS)
    return {name: StackUser(password=passwords[name], groups=groups) for name, groups in USER_GROUPS.items()}
