"""Workers and consoles tell the time by Vault's clock, whatever their own machine's says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from justenough.adapters.vault.connection import VaultConnection
from justenough.adapters.vault.server_clock import RESOLUTION_S, TOLERANCE_S, ServerClock
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
        date = format_datetime(datetime.fromtimestamp(NOON + self.passed, UTC), usegmt=True)
        self.passed += back
        self.clock.read_date(date, sent=sent)

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
    assert abs(machine.error) <= min(abs(wrong), TOLERANCE_S + RESOLUTION_S + there + back) + 1e-5


@given(wrong=st.floats(-TOLERANCE_S, TOLERANCE_S), there=SECONDS, back=SECONDS)
def test_a_clock_that_is_almost_right_is_left_as_it_is(wrong: float, there: float, back: float) -> None:
    machine = Machine(wrong=wrong)
    machine.ask(there=there, back=back)
    assert machine.error == pytest.approx(wrong, abs=1e-5)


def test_before_the_first_answer_and_without_a_date_the_time_is_the_machines() -> None:
    machine = Machine(wrong=HOUR_S)
    for date in (None, "", "yesterday", "Sun, 29 Nov 2026 12:00:00 -0000", "Sun, 29 Nov 99999 12:00:00 GMT"):
        machine.clock.read_date(date, sent=100.0)
        assert machine.error == pytest.approx(HOUR_S)


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
def test_a_connection_to_vault_knows_vaults_time(vault: TlsVault, ahead: float) -> None:
    with closing(VaultConnection(vault.address, cacert=vault.authority)) as connection:
        connection.clock = ServerClock(own=lambda: time.time() + ahead)
        wrong = connection.clock.now() - datetime.now(UTC)
        assert abs(wrong.total_seconds() - ahead) < 60
        connection.call(connection.adapter(None), "get", "sys/health")
        assert abs(connection.clock.now() - datetime.now(UTC)) < timedelta(seconds=60)
