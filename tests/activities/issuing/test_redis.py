"""A Redis for tests, whose users OpenBao's database engine creates: a user works while its job holds it, and is cut off when it is revoked."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

from activities.issuing.results import IssuedCredential
from justenough.adapters.configuration.scaffold.new_resource import NewResource, render_resource
from justenough.domain.core.untrusted_yaml import read_yaml
from justenough.domain.ledger.events import EventType
from tests.activities.catalog_variants import open_changed_desk
from tests.activities.issuing_session import start_session
from tests.activities.vault_shop import Desk, Shop
from tests.support.child_process import run_child
from tests.support.wait import until

pytestmark = pytest.mark.servers
CACHE = {"resource": "baskets", "action": "read", "ttl": "5m", "reason": "Look a basket up"}
RESOURCE = {
    "title": "Baskets",
    "environment": "prod",
    "sensitivity": "internal",
    "owner": "support-leads",
    "actions": {"read": {"issue": {"path": "database/creds/baskets-read"}, "max_ttl": "10m", "revocable": "now"}},
}


def scaffold_rules(action: str) -> list[str]:
    """Return the ACL rules that `catalog add redis` writes for the users of this action."""
    new = NewResource("redis", "baskets", "redis://127.0.0.1", "Baskets")
    fragment = read_yaml("", render_resource(new, {}, today=date(2026, 1, 1)).fragment)
    return list(json.loads(fragment["resources"]["baskets"]["actions"][action]["role"]["creation_statements"]))


ONE_PATTERN = json.dumps(["~basket:*", *scaffold_rules("read")[1:]])
ROLE = {"db_name": "baskets", "creation_statements": ONE_PATTERN, "default_ttl": "2m", "max_ttl": "10m"}


@dataclass(frozen=True)
class Redis:
    """One server on loopback."""

    port: int
    password: str = "a-password-of-the-tests"

    def ask(self, *commands: str, on: socket.socket | None = None) -> list[str]:
        """Return the first line of the answer to each command; an empty one where the server hung up."""
        with closing(on or self.connect()) as connection, connection.makefile("rw", newline="\r\n") as lines:
            return [self._ask_line(lines, command) for command in commands]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def login(self, held: IssuedCredential) -> str:
        return f"AUTH {held.fields['username'].reveal()} {held.fields['password'].reveal()}"

    def count_blocked_clients(self) -> int:
        with closing(self.connect()) as connection, connection.makefile("rw", newline="\r\n") as lines:
            self._ask_line(lines, f"AUTH {self.password}")
            self._ask_line(lines, "INFO clients")
            return int(next(line for line in lines if line.startswith("blocked_clients:")).partition(":")[2])

    def _ask_line(self, lines: Any, command: str) -> str:
        try:
            lines.write(f"{command}\r\n")
            lines.flush()
            return str(lines.readline()).rstrip("\r\n")
        except OSError:
            return ""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    program = shutil.which("redis-check-rdb")
    assert program, "Redis is missing: run `make targets`"
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        server = Redis(free.getsockname()[1])
    # One program for all of Redis: it is what it is called.
    command = ["redis-server", "--port", str(server.port), "--bind", "127.0.0.1", "--save", "", "--requirepass", server.password]
    with run_child(command, executable=program, cwd=tmp_path_factory.mktemp("redis"), stdout=subprocess.DEVNULL) as process:
        _until_up(server, process)
        yield server


def _until_up(server: Redis, process: subprocess.Popen[bytes]) -> None:
    def answers() -> bool:
        assert process.poll() is None, "Redis did not start"
        with suppress(ConnectionRefusedError):
            assert server.ask(f"AUTH {server.password}", "SET basket:1 milk") == ["+OK", "+OK"]
            return True
        return False

    until(answers, "Redis answers")


@pytest.fixture(scope="module")
def at(shop: Shop, redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk whose catalog has the baskets, in a Vault that was set up for it."""
    login = {"username": "default", "password": redis.password, "allowed_roles": ["baskets-read"]}
    config = {"plugin_name": "valkey-database-plugin", "host": "127.0.0.1", "port": redis.port, **login}

    def change(catalog: dict[str, Any]) -> None:
        catalog["resources"]["baskets"] = RESOURCE
        catalog["provision"] += [
            {"path": "database/config/baskets", "data": config},
            {"path": "database/roles/baskets-read", "data": ROLE},
        ]

    with open_changed_desk(shop, tmp_path_factory.mktemp("baskets"), change, provision=True) as made:
        yield made


def test_a_redis_user_works_while_it_is_held_and_its_open_connection_is_cut_when_it_is_revoked(at: Desk, redis: Redis) -> None:
    one = start_session(at, CACHE)
    held = one.issue()
    with closing(redis.connect()) as open_one, open_one.makefile("rw", newline="\r\n") as lines:
        assert [redis._ask_line(lines, each) for each in (redis.login(held), "GET basket:1")] == ["+OK", "$4"]
        assert lines.readline() == "milk\r\n"
        assert redis._ask_line(lines, "GET other").startswith("-NOPERM")

        assert one.end().confirmed

        assert redis._ask_line(lines, "GET basket:1") == ""
    assert redis.ask(redis.login(held))[0].startswith("-WRONGPASS")
    (confirmed,) = at.deps.store.ledger.entries(job=one.job, types=[EventType.CREDENTIAL_CONFIRMED]).items
    assert confirmed.data["how"] == "its lease and token are unknown to Vault"


def test_the_name_of_a_redis_user_contains_the_job_id(at: Desk) -> None:
    one = start_session(at, CACHE)
    assert one.job.upper().replace("-", "_") in one.issue().fields["username"].reveal().upper().replace("-", "_")
    assert one.end().confirmed


def test_a_connection_that_waits_for_data_without_end_is_cut_when_its_user_is_revoked(at: Desk, redis: Redis) -> None:
    one = start_session(at, CACHE)
    held = one.issue()
    with closing(redis.connect()) as waiting, waiting.makefile("rw", newline="\r\n") as lines:
        assert redis._ask_line(lines, redis.login(held)) == "+OK"
        lines.write("XREAD BLOCK 0 STREAMS basket:stream $\r\n")
        lines.flush()

        until(lambda: redis.count_blocked_clients() == 1, "the connection waits for data")
        assert one.end().confirmed

        assert lines.readline() == ""
    assert redis.ask(redis.login(held))[0].startswith("-WRONGPASS")


@pytest.mark.parametrize("action", ["read", "write"])
def test_users_of_catalog_add_may_not_use_commands_that_hold_the_server_up_or_leave_code(redis: Redis, action: str) -> None:
    rules = " ".join(scaffold_rules(action))
    refused = (
        "MIGRATE 127.0.0.1 1 basket:1 0 600000",
        "EVAL return 0",
        "FUNCTION LOAD code",
        "CLIENT PAUSE 600000",
        "FLUSHALL",
        "ACL WHOAMI",
    )
    assert redis.ask(f"AUTH {redis.password}", f"ACL SETUSER tried on >secret {rules}") == ["+OK", "+OK"]

    login, got, *answers = redis.ask("AUTH tried secret", "STRLEN basket:1", *refused)

    assert (login, got) == ("+OK", ":4")
    assert [answer.split()[0] for answer in answers] == ["-NOPERM"] * len(refused)
    assert redis.ask("AUTH tried secret", "SET basket:2 tea")[1].startswith("-NOPERM" if action == "read" else "+OK")
