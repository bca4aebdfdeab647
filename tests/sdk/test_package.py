"""The SDK as a distribution: only the standard library, every file in its wheel, valid syntax for the oldest supported Python."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from justenough_job import api, broker, command
from justenough_job.credential import Credential
from justenough_job.errors import Denied, Invalid, Unavailable, refusal_of
from justenough_job.types import ToolOffer, moment_of, offer_of, seconds_of, tool_of

SDK = Path(__file__).parents[2] / "sdk"
PROJECT = tomllib.loads((SDK / "pyproject.toml").read_text())["project"]
FILES = sorted((SDK / "justenough_job").glob("*.py"))


def test_the_sdk_has_no_dependencies() -> None:
    assert PROJECT["dependencies"] == []
    assert PROJECT["requires-python"] == ">=3.9"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_sdk_imports_only_the_standard_library_and_itself_and_is_valid_python_3_9(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text(), feature_version=(3, 9))))
    names = {alias.name.partition(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {(node.module or "").partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    assert names - set(sys.stdlib_module_names) - {"justenough_job"} == set()


def test_the_sdks_wheel_contains_each_file_and_its_commands(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=SDK, check=True, capture_output=True)
    (built,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(built) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (scripts,) = [wheel.read(name).decode() for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert names == {f"justenough_job/{path.name}" for path in FILES} | {"justenough_job/py.typed"}
    assert "justenough-access = justenough_job.command:main" in scripts
    assert "justenough-mcp = justenough_job.mcp_stdio:main" in scripts


@pytest.mark.parametrize(
    "text, seconds", [("30", 30), ("30s", 30), ("5m", 300), ("1.5h", 5400), ("1d", 86400), (7, 7), (0.5, 0.5), (" 5m ", 300)]
)
def test_durations_are_parsed(text: str | float, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5m", "5 m", "5w", "1e3"])
def test_an_invalid_duration_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="write 30s, 5m, 2h"):
        seconds_of(text)


def test_times_are_parsed_with_both_spellings_of_utc() -> None:
    assert moment_of("2026-01-31T09:30:00Z") == moment_of("2026-01-31T09:30:00+00:00")


def test_unknown_fields_of_a_newer_broker_are_ignored() -> None:
    offer = offer_of({"resource": "a", "action": "read", "policies": ["p"], "colour": "blue"})
    assert (offer.resource, offer.policies, offer.how) == ("a", ("p",), ())
    assert tool_of({"name": "find", "colour": "blue"}) == ToolOffer("find")
    assert isinstance(refusal_of(418, {}), Unavailable)


def credential(**fields: str) -> Credential:
    until = moment_of("2026-01-31T09:30:00Z")
    return Credential(None, fields, resource="orders-db", action="read", id="c-1", request_id="r-1", expires_at=until)  # type: ignore[arg-type] # nothing here speaks to a broker


ODD = {
    "host": "::1",
    "port": "5432",
    "dbname": "a/b",
    "username": "u@x",
    "password": "p:/?#%&'",
    "sslmode": "verify-full",
    "sslrootcert": "/etc/our certs/ca+1.pem",
    "extra-field": "e",
}


def test_a_url_quotes_special_characters() -> None:
    from psycopg.conninfo import conninfo_to_dict

    found = conninfo_to_dict(credential(**ODD).dsn())
    assert {"user": found["user"], **{name: found[name] for name in ("host", "port", "dbname", "password", "sslmode", "sslrootcert")}} == {
        "user": "u@x",
        **{name: ODD[name] for name in ("host", "port", "dbname", "password", "sslmode", "sslrootcert")},
    }


def test_variables_have_libpq_s_names_and_other_fields_have_ours() -> None:
    found = credential(**ODD).env()
    assert (found["PGUSER"], found["PGSSLMODE"], found["JUSTENOUGH_CREDENTIAL_EXTRA_FIELD"]) == ("u@x", "verify-full", "e")
    assert credential(username="u", password="p").env() == {"JUSTENOUGH_CREDENTIAL_USERNAME": "u", "JUSTENOUGH_CREDENTIAL_PASSWORD": "p"}


def test_a_credential_neither_prints_nor_pickles_its_values() -> None:
    import pickle

    held = credential(**ODD)
    for shown in (repr(held), str(held), f"{held}", f"{[held]}"):
        assert ODD["password"] not in shown
        assert "password" in shown
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(held)
    with pytest.raises(KeyError, match="read on orders-db has host"):
        held["token"]


def test_a_missing_field_or_url_is_reported_without_a_value() -> None:
    held = credential(token="t0ken")
    for asked in (held.dsn, lambda: held.env({"A": "password"})):
        with pytest.raises(Invalid, match="password") as refused:
            asked()
        assert "t0ken" not in str(refused.value)


def test_a_denial_names_its_policies_and_a_rejection_each_problem() -> None:
    denied = refusal_of(403, {"detail": "policy denies it", "outcome": "denied", "policies": ["a", "b"], "request_id": "r-1"})
    assert isinstance(denied, Denied)
    assert (str(denied), denied.policies, denied.request_id) == ("policy denies it (a, b)", ("a", "b"), "r-1")
    invalid = refusal_of(422, {"detail": "bad", "errors": [{"path": "ttl", "message": "too long"}, {"path": "", "message": "no"}]})
    assert isinstance(invalid, Invalid)
    assert invalid.problems == ("ttl: too long", "no")


class Outage:
    """A broker that gives these answers in order. Each is the seconds that it takes, its status (0: the broker is gone), and its body."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: tuple[float, int, dict[str, Any]]) -> None:
        self.now, self.answers, self.asked, self.path = 0.0, iter(answers), 0, ""
        for module in (api, broker):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep))
        monkeypatch.setattr(broker.BrokerClient, "_exchange", self.exchange)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    @contextmanager
    def exchange(self, _: str, path: str, *__: Any, **___: Any) -> Iterator[Any]:
        seconds, status, body = next(self.answers)
        self.now, self.asked, self.path = self.now + seconds, self.asked + 1, path
        if not status:
            raise Unavailable("nobody listens")
        yield SimpleNamespace(status=status, read=lambda: json.dumps(body).encode(), getheader=lambda _: None)


REQUEST = api.AccessRequest(broker.BrokerClient(), {"resource": "orders-db", "action": "write"})
DOWN = {"detail": "the store does not answer"}


def test_an_outage_while_people_are_asked_does_not_end_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    outage = Outage(monkeypatch, (40, 503, DOWN), *[(1, 503, DOWN)] * 600, (20, 200, {"state": "approved"}))
    REQUEST.wait_for_answer("r-1", end=None)
    assert outage.asked == 602
    # A caller who waits for a minute is told of the outage after that.
    outage = Outage(monkeypatch, *[(10, 503, DOWN)] * 60)
    with pytest.raises(Unavailable, match="the store does not answer"):
        REQUEST.wait_for_answer("r-1", end=60)
    assert 60 < outage.now < 60 + broker.RETRY_TIMEOUT_S


@pytest.mark.parametrize("at", [10, 50], ids=["an early outage", "a late outage"])
def test_a_caller_who_waits_for_a_minute_learns_of_an_outage_then_or_waits_on_for_the_rest_of_the_minute(
    monkeypatch: pytest.MonkeyPatch, at: float
) -> None:
    outage = Outage(monkeypatch, (at, 503, DOWN), *[(1, 503, DOWN)] * 100)
    with pytest.raises(Unavailable, match="the store does not answer"):
        REQUEST.wait_for_answer("r-1", end=60)
    assert outage.now <= 50 + broker.RETRY_TIMEOUT_S
    outage = Outage(monkeypatch, (at, 503, DOWN), (1, 200, {"state": "approved"}))
    REQUEST.wait_for_answer("r-1", end=60)
    assert outage.path == f"/v1/requests/r-1?wait={60 - at - broker.RETRY_INTERVAL_S:.3f}"


def test_a_program_that_waits_for_people_ends_soon_after_its_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    outage = Outage(monkeypatch, *[(30, 503, DOWN)] * 3, *[(0, 0, {})] * 100)
    with pytest.raises(Unavailable, match="nobody listens"):
        REQUEST.wait_for_answer("r-1", end=None)
    assert 90 < outage.now < 92 + broker.RETRY_TIMEOUT_S


def test_a_call_that_failed_late_is_retried_as_long_as_one_that_failed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    outage = Outage(monkeypatch, (30, 503, DOWN), *[(1, 503, DOWN)] * 60)
    with pytest.raises(Unavailable):
        REQUEST.broker.call("POST", "/v1/access", {})
    assert 30 + broker.RETRY_TIMEOUT_S - 2 < outage.now <= 30 + broker.RETRY_TIMEOUT_S


def test_a_request_that_the_broker_no_longer_knows_is_made_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    unknown, until = {"detail": "this job has no request r-1"}, "2026-01-01T00:00:00+00:00"
    issued = {"credential_id": "c-2", "request_id": "r-2", "action": "write", "expires_at": until, "data": {"username": "u"}}
    monkeypatch.setattr(broker.BrokerClient, "from_environment", broker.BrokerClient)
    first, second = (0, 202, {"request_id": "r-1"}), (0, 202, {"request_id": "r-2"})
    answers = (first, (1, 404, unknown), second, (1, 200, {"state": "approved"}), (0, 200, issued))
    Outage(monkeypatch, *answers)
    assert api.ask("orders-db", "write").request_id == "r-2"
    Outage(monkeypatch, *answers)
    assert command.main(["orders-db", "write"]) == 0
    assert "JUSTENOUGH_CREDENTIAL_USERNAME=u" in capfd.readouterr().out
    # The SDK does not ask again forever.
    outage = Outage(monkeypatch, *[first, (1, 404, unknown)] * 9)
    with pytest.raises(Invalid, match="no request r-1"):
        api.ask("orders-db", "write")
    assert outage.asked == 4
    assert command.main(["orders-db", "write"]) == command.EXIT_USAGE
    assert outage.asked == 8
