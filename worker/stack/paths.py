"""Every path of the embedded stack below JUSTENOUGH_HOME, by name. Touches no disk."""

from __future__ import annotations

from pathlib import Path


class StackPaths:
    """The paths in one home, which may be relative or start with `~`. They are absolute, so that a child's working directory does not matter."""

    def __init__(self, home: Path) -> None:
        self.home = home = home.expanduser().absolute()
        self.stack = home / "stack.json"
        """Addresses, users and pids. It exists while the stack is ready."""
        self.ports = home / "ports.json"
        """The ports of the first start, which later starts use again."""
        self.people = home / "people.json"
        """The passwords of the embedded users."""
        self.databases = home / "postgres.json"
        """The passwords of PostgreSQL's superuser and of Vault's database user."""
        self.admin_token = home / "vault-admin.token"
        """Vault's admin token. Only the administrator's commands read it: `vault`, `people` and `doctor`."""
        self.seal_key = home / "seal.key"
        """The key of Vault's static seal: 32 random bytes."""
        self.vault = home / "vault"
        """Vault's configuration, raft data, recovery key and audit log."""
        self.vault_initialising = self.vault / "initialising"
        """It exists from the first request to initialise Vault until its admin token and recovery key are saved."""
        self.audit_log = self.vault / "audit.log"
        self.temporal = home / "temporal"
        """The folder of Temporal's SQLite file."""
        self.postgres = home / "postgres"
        """PostgreSQL's folder. It belongs to the account that runs PostgreSQL."""
        self.run = home / "run"
        """Pidfiles, the supervisor's lock, the worker's liveness file."""
        self.logs = home / "logs"
        self.worker_alive = self.run / "worker.alive"
        """The worker touches this file every second."""

    def log(self, child: str) -> Path:
        return self.logs / f"{child}.log"
