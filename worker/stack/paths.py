"""Where the embedded stack keeps what: every path below JUSTENOUGH_HOME, by name. Holds no content and touches no disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StackPaths:
    """Paths in one home; always absolute, so that a child's working directory does not matter."""

    home: Path

    @classmethod
    def of(cls, home: Path) -> StackPaths:
        """Return the places of a home that may be written relative or with `~`."""
        return cls(home.expanduser().absolute())

    @property
    def stack(self) -> Path:
        """stack.json: what runs and how to reach it; there while the stack is ready."""
        return self.home / "stack.json"

    @property
    def ports(self) -> Path:
        """The ports of the first start, used again."""
        return self.home / "ports.json"

    @property
    def people(self) -> Path:
        """The embedded users' passwords."""
        return self.home / "people.json"

    @property
    def databases(self) -> Path:
        """Passwords of PostgreSQL's superuser and of Vault's login."""
        return self.home / "postgres.json"

    @property
    def admin_token(self) -> Path:
        """Vault's admin token, read by `vault setup` alone."""
        return self.home / "vault-admin.token"

    @property
    def seal_key(self) -> Path:
        """The key of Vault's static seal: 32 random bytes."""
        return self.home / "seal.key"

    @property
    def vault(self) -> Path:
        """Vault's configuration, raft data, recovery key and audit log."""
        return self.home / "vault"

    @property
    def temporal(self) -> Path:
        """Temporal's SQLite file."""
        return self.home / "temporal"

    @property
    def postgres(self) -> Path:
        """PostgreSQL's folder; belongs to the account that runs it."""
        return self.home / "postgres"

    @property
    def run(self) -> Path:
        """Marks of running processes, the lock, the worker's sign of life."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        """One log per child."""
        return self.home / "logs"

    @property
    def worker_alive(self) -> Path:
        """A file that the worker touches every second."""
        return self.run / "worker.alive"

    def log(self, child: str) -> Path:
        """The log of one child."""
        return self.logs / f"{child}.log"
