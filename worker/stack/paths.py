"""Every path of the embedded stack below JUSTENOUGH_HOME, by name. Touches no disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StackPaths:
    """The paths in one home. They are absolute, so that a child's working directory does not matter."""

    home: Path
    stack: Path
    """stack.json: addresses, users and pids. It exists while the stack is ready."""
    ports: Path
    """The ports of the first start, which later starts use again."""
    people: Path
    """The passwords of the embedded users."""
    databases: Path
    """The passwords of PostgreSQL's superuser and of Vault's database user."""
    admin_token: Path
    """Vault's admin token. Only the administrator's commands read it: `vault`, `people` and `doctor`."""
    seal_key: Path
    """The key of Vault's static seal: 32 random bytes."""
    vault: Path
    """Vault's configuration, raft data, recovery key and audit log."""
    temporal: Path
    """The folder of Temporal's SQLite file."""
    postgres: Path
    """PostgreSQL's folder. It belongs to the account that runs PostgreSQL."""
    run: Path
    """Pidfiles, the supervisor's lock, the worker's liveness file."""
    logs: Path
    worker_alive: Path
    """The worker touches this file every second."""

    @classmethod
    def of(cls, home: Path) -> StackPaths:
        """Return the paths of a home, which may be relative or start with `~`."""
        home = home.expanduser().absolute()
        return cls(
            home=home,
            stack=home / "stack.json",
            ports=home / "ports.json",
            people=home / "people.json",
            databases=home / "postgres.json",
            admin_token=home / "vault-admin.token",
            seal_key=home / "seal.key",
            vault=home / "vault",
            temporal=home / "temporal",
            postgres=home / "postgres",
            run=home / "run",
            logs=home / "logs",
            worker_alive=home / "run" / "worker.alive",
        )

    @property
    def audit_log(self) -> Path:
        return self.vault / "audit.log"

    def log(self, child: str) -> Path:
        return self.logs / f"{child}.log"
