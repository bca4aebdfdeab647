"""Each installed Python that the SDK supports runs the SDK and its MCP bridge, in one real job each."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.activities.broker.test_tool_gateway import tenant_order
from tests.sdk.remote_python import Remote, launch_remote
from tests.sdk.test_mcp_bridge import call, start_bridge, text_of
from tests.support.people import Human
from tests.support.shop import Login, Shop

pytestmark = pytest.mark.servers
TESTED = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")


def pythons() -> list[Path]:
    """Return one interpreter of each supported version that pyenv has; without pyenv, the tests' own interpreter."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = {version: path for version in TESTED for path in sorted(root.glob(f"versions/{version}.*/bin/python"))}
    own = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    return [*found.values()] or [own]


@pytest.fixture(scope="module", params=pythons(), ids=lambda path: path.resolve().name)
def job(ops: Human, request: pytest.FixtureRequest) -> Iterator[Remote]:
    """Yield a job of this Python."""
    with launch_remote(ops, python=request.param) as running:
        version = running.run("import sys; result = '.'.join(map(str, sys.version_info[:2]))")
        assert f"python{version}" == request.param.resolve().name
        yield running


def test_each_installed_python_can_use_the_sdk(job: Remote, shop: Shop) -> None:
    code = """
    import subprocess, sys, justenough_job as je
    with je.access("orders-db", "read") as credential:
        inside = [credential["username"], credential["password"], credential.dsn()]
    command = [sys.executable, "-m", "justenough_job.command", "orders-db", "read", "--format", "dsn"]
    done = subprocess.run([*command, "--", "sh", "-c", 'test -n "$DATABASE_URL"; exit 5'])
    result = [inside, done.returncode, je.catalog()[0].resource]
    """
    (user, password, dsn), code_of_command, resource = job.run(code)
    assert (code_of_command, bool(resource)) == (5, True)
    assert dsn.startswith(f"postgresql://{user}:")
    assert not shop.can_log_in(Login(user, password))


def test_each_installed_python_can_run_the_bridge(job: Remote, shop: Shop) -> None:
    order = tenant_order(shop)
    start_bridge(job, "[sys.executable, '-m', 'justenough_job.mcp_stdio']")
    rest, code, said = job.run(f"says({call(1, 'find-order', order_id=order)!r}); result = ends()")
    assert json.loads(text_of(rest[0]))["rows"][0]["id"] == order
    assert (code, said) == (0, "")
