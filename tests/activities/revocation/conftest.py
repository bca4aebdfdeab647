"""A second PostgreSQL, for targets that point at another server than the one in which Vault creates users."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from justenough.adapters.runtime.private_files import read_json
from tests.activities.plain_roles import CREATION
from tests.activities.vault_shop import EXAMPLE, Shop
from worker.stack.control import running_stack
from worker.stack.paths import StackPaths
from worker.stack.seed import shop_environment


@pytest.fixture(scope="package")
def other_server(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What a `target` says that points at this server. It has an observer, a reaper and readers of its own (`database/creds/other-read`)."""
    home = tmp_path_factory.mktemp("other") / "home"
    with running_stack(home, EXAMPLE, only=("postgres",), provision=False):
        places = StackPaths(home)
        port = int(read_json(places.ports)["postgres"])
        connection = {
            "plugin_name": "postgresql-database-plugin",
            "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{port}/shop?sslmode=disable",
            "username": "je_vault",
            "password": shop_environment(places)["SHOP_VAULT_PASSWORD"],
            "password_authentication": "scram-sha-256",
            "allowed_roles": ["other-observer", "other-reaper", "other-read"],
        }
        shop.admin("POST", "database/config/other", connection)
        for own in ("observer", "reaper"):
            creation = f"CREATE ROLE \"{{{{name}}}}\" LOGIN PASSWORD '{{{{password}}}}' VALID UNTIL '{{{{expiration}}}}' IN ROLE shop_{own}"
            shop.admin("POST", f"database/roles/other-{own}", {"db_name": "other", "default_ttl": "1h", "creation_statements": [creation]})
        shop.admin("POST", "database/roles/other-read", {"db_name": "other", "default_ttl": "2m", "creation_statements": [CREATION]})
        yield {
            "postgres": f"host=127.0.0.1 port={port} dbname=shop",
            "observe": "database/creds/other-observer",
            "end": "database/creds/other-reaper",
        }
        shop.admin("DELETE", "database/config/other")
