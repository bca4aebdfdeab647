"""What a running stack tells others: the model of stack.json. The file is 0600, it holds passwords."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from justenough.adapters.runtime.private_files import write_private
from justenough.domain.core.errors import GiveUp
from worker.stack.paths import StackPaths
from worker.stack.private_files import ensure_passwords

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
"""What a configuration may ship for its jobs."""
APPS = ("worker", "console")
CHILDREN = (*SERVERS, *CONFIGURATION_CHILDREN, *APPS)


class StackUnreadable(GiveUp):
    """stack.json is there but is not what this version writes."""


class StackUser(BaseModel):
    model_config = ConfigDict(frozen=True)

    password: str
    groups: tuple[str, ...]


class Stack(BaseModel):
    """A running stack: where everything is, and as whom to log in. A server that was not asked for has no address."""

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

    def write(self, places: StackPaths) -> None:
        """Publish it, in one step."""
        write_private(places.stack, self.model_dump_json(indent=1))


def read_stack(places: StackPaths) -> Stack | None:
    """The stack as published; None where none is. Raises StackUnreadable."""
    try:
        return Stack.model_validate_json(places.stack.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        message = f"{places.stack} is not readable: {error.errors()[0]['msg']}. Stop the stack (justenough down) and start it again."
        raise StackUnreadable(message) from error


def stack_users(places: StackPaths) -> dict[str, StackUser]:
    """The embedded users with their passwords, which are made on first use."""
    made = ensure_passwords(places.people, USER_GROUPS)
    return {name: StackUser(password=made[name], groups=groups) for name, groups in USER_GROUPS.items()}
