"""Workers and consoles as users of the store whom Vault's database engine creates, by a login of Vault that is no superuser."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from console.auth.vault_directory import ConsoleVault
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.store import Store, StoreRightsMissing, StoreUnavailable
from justenough.adapters.vault import IssuedSecret, Vault
from justenough.adapters.vault.connection import MIN_RELOGIN_AGE_S, READ_TIMEOUT_S
from justenough.domain.core.secret import Secret
from justenough.services.open_store import MIN_REJECTED_AGE_S, VaultLogins, open_store
from tests.adapters.store.event_samples import job_id, submission
from tests.support.wait import until
from tests.worker.provisioning.provisioned_shop import NUMBERS, Emptied, Shop
from worker.provisioning.admin_client import WriteOutcome
from worker.stack.doctor.store import store_findings

pytestmark = pytest.mark.servers
PATH = "store/creds/je-store"
TTL_S = 3600
CREATION = """CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE je_store"""
REVOCATION = 'DROP ROLE IF EXISTS "{{name}}"'


@dataclass(frozen=True, slots=True)
class OwnStore:
    """A store on the tests' PostgreSQL, in whose users Vault logs workers and consoles in."""

    admin_url: str
    url: str
    namespace: Emptied

    @property
    def settings(self) -> Settings:
        return self.namespace.settings.model_copy(update={"database_url": self.url, "database_credentials": PATH})

    def worker_vault(self) -> Vault:
        vault = Vault(self.settings.vault_addr, namespace=self.settings.vault_namespace)
        vault.login_from_file(self.settings.worker_approle_file)
        return vault

    def users(self) -> set[str]:
        query = "SELECT rolname FROM pg_roles WHERE pg_has_role(rolname, 'je_store', 'MEMBER') AND rolname LIKE 'v-%'"
        with psycopg.connect(self.admin_url) as admin:
            return {name for (name,) in admin.execute(query)}


@pytest.fixture(scope="module")
def own(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnStore]:
    empty = Emptied(shop, tmp_path_factory.mktemp("own"))
    empty.create()
    parts = urlsplit(shop.superuser)
    name = f"own_store_{next(NUMBERS)}"
    with shop.database() as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        for statement in ("CREATE ROLE je_store", "CREATE ROLE store_vault LOGIN CREATEROLE PASSWORD 'vaults-own'"):
            admin.execute(statement.encode())
        admin.execute("GRANT je_store TO store_vault WITH ADMIN OPTION")
    admin_url = parts._replace(path=f"/{name}").geturl()
    with closing(Store(admin_url)) as store:
        store.migrate(grant="je_store")
    place = f"127.0.0.1:{parts.port}/{name}"
    empty.settings = empty.settings.model_copy(update={"database_credentials": PATH})
    empty.apply()
    empty.write("sys/mounts/store", type="database")
    connection = {
        "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@{place}",
        "username": "store_vault",
        "password": "vaults-own",
    }
    empty.write("store/config/pg", plugin_name="postgresql-database-plugin", allowed_roles="je-store", **connection)
    statements = {"creation_statements": [CREATION], "revocation_statements": [REVOCATION]}
    empty.write("store/roles/je-store", db_name="pg", **statements, default_ttl=f"{TTL_S}s", max_ttl="24h")
    made = OwnStore(admin_url, f"postgresql://{place}", empty)
    yield made
    empty.delete()
    roles = (*made.users(), "store_vault", "je_store")
    with shop.database() as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        for role in roles:
            admin.execute(f'DROP ROLE IF EXISTS "{role}"'.encode())


def test_a_worker_and_a_console_use_users_of_their_own_with_the_rights_of_the_role(own: OwnStore) -> None:
    before = own.users()
    with closing(own.worker_vault()) as vault, closing(open_store(own.settings, vault)) as store:
        store.migrate()
        store.ledger.append([submission(job_id(1))])
        report = store.inspect().postgres
    with closing(ConsoleVault(own.settings)) as vault, closing(open_store(own.settings, vault)) as store:
        store.migrate()
        assert store.jobs.get(job_id(1)) is not None
        consoles = store.inspect().postgres
    assert report is not None
    assert consoles is not None
    assert {report.role, consoles.role} == own.users() - before
    assert report.role != consoles.role
    assert (report.missing_rights, report.may_change_ledger) == ((), False)


def test_the_check_logs_in_like_the_worker_of_this_machine(own: OwnStore) -> None:
    found = {finding.what: finding for finding in store_findings(own.settings)}
    assert {finding.level for finding in found.values()} == {"ok"}
    assert "the role v-" in found["rights"].found
    (refused,) = store_findings(
        own.settings.model_copy(update={"worker_approle": Path("/nowhere.json"), "console_approle": Path("/nowhere")})
    )
    assert (refused.what, refused.level) == ("store", "missing")
    assert "/nowhere.json cannot be read (No such file or directory); `justenough vault setup` writes it" in refused.found


def test_a_plan_shows_that_the_policies_allow_the_path_of_the_stores_credentials(own: OwnStore) -> None:
    with_path = own.namespace.settings
    own.namespace.settings = with_path.model_copy(update={"database_credentials": None})
    changed = {step.path: "\n".join(step.lines) for step in own.namespace.plan() if step.outcome is WriteOutcome.CHANGED}
    own.namespace.settings = with_path
    assert set(changed) == {"sys/policies/acl/je-worker", "sys/policies/acl/je-console"}
    assert all(f'-path "{PATH}"' in lines for lines in changed.values())


def test_connections_move_to_the_next_user_at_half_of_the_lease(own: OwnStore) -> None:
    before, now = own.users(), 0.0
    with closing(own.worker_vault()) as vault:
        logins = VaultLogins(vault, PATH, ticks=lambda: now)
        with closing(Store(own.url, logins=logins)) as store, closing(store.open_change_feed()) as changes:
            store.migrate()
            changes.wait(30)  # Begins to listen.
            (first,) = own.users() - before
            now = TTL_S / 2 - 1
            store.ledger.append([submission(job_id(2))])
            assert own.users() - before == {first}
            now = TTL_S / 2 + 1
            store.ledger.append([submission(job_id(3))])
            until(lambda: len(own.users() - before) == 2, "the second user")
            until(lambda: logins.current().user != first, "the second login")
            second = store.inspect().postgres
            assert second is not None
            assert second.role != first
            changes.wait(30)  # The entry, or the new connection.
            changes.wait(0.1)
            # Nothing uses the first user any more.
            with psycopg.connect(own.admin_url, autocommit=True) as admin:
                assert admin.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (first,)).fetchone() == (0,)


def test_a_new_login_to_vault_brings_new_users_because_the_old_ones_end_with_the_old_login(own: OwnStore) -> None:
    with closing(own.worker_vault()) as vault, closing(open_store(own.settings, vault)) as store:
        store.ping()
        before = own.users()
        store.ping()
        assert own.users() == before
        vault.login_from_file(own.settings.worker_approle_file)
        store.ping()
        assert own.users() > before


def test_vault_drops_a_user_when_its_lease_ends(own: OwnStore) -> None:
    before = own.users()
    with closing(own.worker_vault()) as vault, closing(open_store(own.settings, vault)) as store:
        store.ping()
        (user,) = own.users() - before
        for lease in own.namespace.lists(f"sys/leases/lookup/{PATH}"):
            own.namespace.write("sys/leases/revoke", lease_id=f"{PATH}/{lease}", sync=True)
    assert user not in own.users()


@pytest.mark.parametrize("opens_a_connection", [False, True])
def test_a_process_whose_user_was_dropped_uses_the_next_one(own: OwnStore, *, opens_a_connection: bool) -> None:
    """After `lease revoke -prefix auth/approle/login`, the process does not know that its login to Vault is revoked."""
    now = 0.0
    with closing(own.worker_vault()) as vault:
        logins = VaultLogins(vault, PATH, ticks=lambda: now)
        with closing(Store(own.url, logins=logins)) as store, closing(Store(own.url, logins=logins)) as other:
            store.ledger.append([submission(job_id(5))])
            dropped = logins.current().user
            own.namespace.write("sys/leases/revoke-prefix/auth/approle/login", sync=True)
            until(lambda: dropped not in own.users(), "the end of the user")
            assert vault._login
            old_enough = vault._login.began + MIN_RELOGIN_AGE_S
            until(lambda: time.monotonic() > old_enough, "a login that may be replaced")
            now = MIN_REJECTED_AGE_S
            with pytest.raises(StoreUnavailable):
                (other if opens_a_connection else store).ledger.append([submission(job_id(6))])
            store.ledger.append([submission(job_id(6))])
            assert logins.current().user in own.users()


def test_a_user_that_lacks_a_right_is_kept_for_a_minute(own: OwnStore) -> None:
    now = 0.0
    with closing(own.worker_vault()) as vault:
        logins = VaultLogins(vault, PATH, ticks=lambda: now)
        login = logins.current()
        now = MIN_REJECTED_AGE_S - 1
        logins.reject(login)
        assert logins.current() is login
        now = MIN_REJECTED_AGE_S
        logins.reject(login)
        assert logins.current() is not login


def test_while_vault_is_away_the_last_user_is_used_until_it_ends(own: OwnStore) -> None:
    now = 0.0
    with closing(own.worker_vault()) as vault:
        logins = VaultLogins(vault, PATH, ticks=lambda: now)
        with closing(Store(own.url, logins=logins)) as store:
            store.ping()
            vault.address = "http://127.0.0.1:9"
            vault._login = None
            now = TTL_S * 0.9
            store.ping()
            now = TTL_S - 10.0
            with pytest.raises(StoreUnavailable, match="there is no login for the store: not logged in to Vault"):
                store.ping()


def test_while_vault_hangs_no_transaction_waits_for_it(own: OwnStore) -> None:
    now = 0.0
    with closing(own.worker_vault()) as vault, socket.create_server(("127.0.0.1", 0)) as hanging:
        logins = VaultLogins(vault, PATH, ticks=lambda: now)
        with closing(Store(own.url, logins=logins)) as store:
            store.ping()
            assert vault._login
            vault._login.adapter.base_uri = f"http://127.0.0.1:{hanging.getsockname()[1]}"
            now = TTL_S * 0.6
            began = time.monotonic()
            store.ledger.append([submission(job_id(4))])
            with closing(hanging.accept()[0]):
                store.ping()
                assert time.monotonic() - began < READ_TIMEOUT_S


def test_a_process_that_can_start_no_thread_keeps_its_user_and_gets_the_next_one_later(
    own: OwnStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with closing(own.worker_vault()) as vault:
        logins = VaultLogins(vault, PATH, ticks=lambda: now)
        first = logins.current()
        now = TTL_S * 0.6
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", fail)
            assert logins.current() is first
        now = TTL_S * 1.1
        assert logins.current() is not first


@pytest.mark.parametrize("path", ["store/creds/none", "kv/creds/none"])
def test_a_path_without_credentials_is_refused_in_one_sentence(own: OwnStore, path: str) -> None:
    settings = own.settings.model_copy(update={"database_credentials": path})
    with (
        closing(own.worker_vault()) as vault,
        closing(open_store(settings, vault)) as store,
        pytest.raises(StoreUnavailable, match=f"there is no login for the store: .*{path}"),
    ):
        store.migrate()


@pytest.mark.parametrize("fields, ttl", [({"key": "x"}, 60), ({"username": "u", "password": "p"}, None)])
def test_a_path_that_gives_no_login_with_a_lease_is_named_with_what_it_must_be(fields: dict[str, str], ttl: int | None) -> None:
    secret = IssuedSecret(lease_id=None, ttl=ttl, fields={name: Secret(text) for name, text in fields.items()})
    vault: Any = SimpleNamespace(login_identity=object(), creds=lambda _: secret)
    why = (
        "kv/store returns no user and password with a lease; JUSTENOUGH_DATABASE_CREDENTIALS must be MOUNT/creds/ROLE of a database engine"
    )
    with pytest.raises(StoreUnavailable, match=f"^there is no login for the store: {why}; "):
        VaultLogins(vault, "kv/store").current()


def test_a_user_created_by_vault_cannot_migrate_the_store(own: OwnStore) -> None:
    with psycopg.connect(own.admin_url, autocommit=True) as admin:
        query = (
            "WITH old AS (SELECT version_num FROM alembic_version) UPDATE alembic_version SET version_num = '0025' RETURNING (TABLE old)"
        )
        (newest,) = admin.execute(query).fetchone() or ("",)
        with (
            closing(own.worker_vault()) as vault,
            closing(open_store(own.settings, vault)) as store,
            pytest.raises(StoreRightsMissing, match=rf"at revision 0025, this version needs {newest}, .*justenough store migrate"),
        ):
            store.migrate()
        admin.execute("UPDATE alembic_version SET version_num = %s", (newest,))
