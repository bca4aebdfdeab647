"""Workers and consoles tell the time by Vault's clock, whatever their own machine's says."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from justenough.adapters.vault.connection import VaultConnection
from justenough.adapters.vault.server_clock import RESOLUTION_S, TOLERANCE_S, ServerClock
from tests.support.canned_server import serve_canned_answers
from tests.support.tls_vault import TlsVault, serve_tls_vault

HOUR_S = 3600.0
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()
SECONDS = st.floats(0, 20)


class Machine:
    """A machine and a server on which time passes as a test says. `wrong`: seconds by which the machine's own clock is ahead."""

    def __init__(self, *, wrong: float = 0.0) -> None:
        self.passed, self.wrong = 0.0, wrong
        self.clock = ServerClock(own=lambda: NOON + self.passed + self.wrong, steady=lambda: 100.0 + self.passed)

    def ask(self, *, there: float = 0.0, back: float = 0.0) -> None:
        """Send a request that arrives after `there` seconds and whose answer takes `back`."""
        sent = self.clock.steady()
        self.passed += there
        # The time in an answer is rounded to whole seconds.
        at = NOON + round(self.passed)
        self.passed += back
        self.clock.note(at, sent=sent)

    @property
    def error(self) -> float:
        """Seconds by which what the clock says is ahead of the server's."""
        return self.clock.now().timestamp() - NOON - self.passed


@given(wrong=st.floats(-1e8, 1e8), start=SECONDS, there=SECONDS, back=SECONDS, later=st.floats(0, 1e6))
def test_the_time_is_the_servers_as_exactly_as_its_answer_tells(
    wrong: float, start: float, there: float, back: float, later: float
) -> None:
    machine = Machine(wrong=wrong)
    machine.passed = start
    machine.ask(there=there, back=back)
    machine.passed += later
    assert abs(machine.error) <= min(abs(wrong), TOLERANCE_S + 2 * RESOLUTION_S + there + back) + 1e-5


@given(wrong=st.floats(-TOLERANCE_S, TOLERANCE_S), there=SECONDS, back=SECONDS)
def test_a_clock_that_is_almost_right_is_left_as_it_is(wrong: float, there: float, back: float) -> None:
    machine = Machine(wrong=wrong)
    machine.ask(there=there, back=back)
    assert machine.error == pytest.approx(wrong, abs=1e-5)


def test_before_the_first_answer_the_time_is_the_machines() -> None:
    assert Machine(wrong=HOUR_S).error == pytest.approx(HOUR_S)


def test_a_clock_that_is_set_afterwards_changes_nothing_and_is_reported_once() -> None:
    machine = Machine()
    with capture_logs() as logged:
        machine.ask()
        machine.wrong = HOUR_S
        machine.passed += 60
        assert abs(machine.error) <= TOLERANCE_S + RESOLUTION_S
        machine.ask()
        machine.ask()
        machine.wrong = 0
        machine.ask()
        machine.wrong = -HOUR_S
        machine.ask()
    assert [entry["ahead_s"] for entry in logged] == [HOUR_S, -HOUR_S]


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsVault]:
    with serve_tls_vault(tmp_path_factory.mktemp("vault"), "worker.test") as served:
        yield served


@pytest.mark.servers
@pytest.mark.parametrize("ahead", [-HOUR_S, HOUR_S])
def test_a_connection_that_logs_in_knows_vaults_time(vault: TlsVault, tmp_path: Path, ahead: float) -> None:
    token = vault.admin.post("auth/token/create", json={"ttl": "10m"}).raise_for_status().json()["auth"]["client_token"]
    with closing(VaultConnection(vault.address, cacert=vault.authority)) as connection:
        connection.clock = ServerClock(own=lambda: time.time() + ahead)
        wrong = connection.clock.now() - datetime.now(UTC)
        assert abs(wrong.total_seconds() - ahead) < 60
        connection.login_from_file(write_login(tmp_path, token))
        assert abs(connection.clock.now() - datetime.now(UTC)) < timedelta(seconds=60)


@pytest.mark.parametrize("ahead", [-HOUR_S, HOUR_S])
def test_the_time_is_that_of_the_active_node_not_of_the_standby_that_dates_its_answer(tmp_path: Path, ahead: float) -> None:
    """The standby's clock agrees with this machine's; that of the active node, which ends leases, does not."""
    active = datetime.now(UTC) + timedelta(seconds=ahead)
    with serve_canned_answers() as standby, closing(VaultConnection(standby.address)) as connection:
        standby.set_response(200, {"data": {"expire_time": (active + timedelta(seconds=600)).isoformat(), "ttl": 600}})
        connection.login_from_file(write_login(tmp_path, "a-token"))
        assert abs(connection.clock.now() - active) < timedelta(seconds=60)


@pytest.mark.parametrize("told", [{}, {"expire_time": None, "ttl": 0}, {"expire_time": "soon", "ttl": 600}])
def test_a_token_that_never_expires_tells_no_time(tmp_path: Path, told: dict[str, Any]) -> None:
    with serve_canned_answers() as vault, closing(VaultConnection(vault.address)) as connection:
        connection.clock = ServerClock(own=lambda: time.time() + HOUR_S)
        vault.set_response(200, {"data": told})
        connection.login_from_file(write_login(tmp_path, "a-token"))
        assert connection.clock.now() - datetime.now(UTC) > timedelta(minutes=59)


def write_login(folder: Path, token: str) -> Path:
    file, held = folder / "login.json", folder / "token"
    held.write_text(token)
    file.write_text(json.dumps({"method": "token", "token_file": str(held)}))
    return file
