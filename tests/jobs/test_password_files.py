"""The libpq password file of a job: private to the job's user, named by PGPASSFILE, in memory, and useless after the job's end."""

from __future__ import annotations

import json
import socket

import pytest

from tests.support.people import Human
from tests.support.shop import Login, Shop, access, spec

pytestmark = pytest.mark.servers
CONNECT = {"PGHOST": "host", "PGPORT": "port", "PGDATABASE": "dbname"}
LOOK = """
import json, os, psycopg, socket, stat, sys
where = os.environ["PGPASSFILE"]
found = os.stat(where)
lines = open(where).read().splitlines()
logins = [psycopg.connect(user=user, connect_timeout=60).execute("SELECT current_user").fetchone()[0] for user in (os.environ["ONE"], os.environ["TWO"])]
told = {"where": where, "mode": oct(stat.S_IMODE(found.st_mode)), "own": found.st_uid == os.getuid(), "lines": lines, "logins": logins}
told["password"] = "PGPASSWORD" in os.environ
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as test:
    test.sendall(json.dumps(told).encode())
"""


def test_libpq_uses_the_password_file_of_two_credentials_by_itself(ops: Human, shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(180)
        items = [
            access(deliver={"env": {**CONNECT, "ONE": "username"}, "pgpass": {"path": "pgpass"}}),
            access("refunds-db", deliver={"env": {"TWO": "username"}, "pgpass": {"path": "pgpass"}}),
        ]
        run = {"command": ["python3", "-c", LOOK, str(server.getsockname()[1])]}
        job = ops.launch(spec("", *items, run=run))
        connection, _ = server.accept()
        with connection, connection.makefile() as told:
            seen = json.load(told)
    assert (seen["where"], seen["mode"], seen["own"], seen["password"]) == ("/run/justenough/pgpass", "0o600", True, False)
    logins = [Login(*line.split(":")[3:]) for line in seen["lines"]]
    assert [login.user for login in logins] == seen["logins"]
    ended = ops.until(job)
    assert ended["state"] == "succeeded"
    shop.assert_dead(ended, *logins)
