"""Connections to a real Temporal: plain, behind TLS with a private CA, and behind TLS that requires a client certificate; and the error for
each failure.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesResponse
from temporalio.envconfig import ClientConfigProfile, ClientConfigTLS
from temporalio.service import KeepAliveConfig, RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.temporal import (
    KEEP_ALIVE,
    NamespaceUnfit,
    TemporalDown,
    TemporalProfileInvalid,
    connect_temporal,
    explain_failure,
    prepare_namespace,
    with_temporal_profile,
)
from justenough.domain.contracts.search_attributes import SEARCH_ATTRIBUTES
from tests.support.silent_listener import swallow_connections
from tests.support.tls_authority import create_authority
from tests.support.tls_front import serve_tls, server_context
from tests.workflows.servers import PROGRAMS, run_real_server

pytestmark = pytest.mark.servers

SERVER, CLIENT = "temporal.test", "worker.test"


@pytest.fixture(autouse=True)
def _no_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "none.toml"))
    monkeypatch.setattr("justenough.adapters.temporal.CONNECT_TIMEOUT_S", 60.0)


@pytest.fixture(scope="module")
async def plain() -> AsyncIterator[str]:
    """The address of a Temporal without TLS."""
    async with run_real_server() as bench:
        yield bench.env.client.service_client.config.target_host


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, ssl.SSLContext]]:
    """The file of a private CA, and a TLS context for the server and one whose certificate the client uses; each in a file of its name."""
    return create_authority(tmp_path_factory.mktemp("tls"), SERVER, CLIENT)


async def answers(address: str) -> bool:
    """Whether a client of this address gets an answer to a call about the namespace."""
    client = await connect_temporal(Settings(temporal_address=address), identity="test")
    return (await client.count_workflows("WorkflowId = '-'")).count == 0


async def why_not(address: str) -> str:
    with pytest.raises(TemporalDown) as caught:
        await connect_temporal(Settings(temporal_address=address), identity="test")
    message = str(caught.value)
    assert message.startswith(f"Temporal at {address} ")
    return message


async def test_a_connection_over_tls_can_use_a_private_ca_and_a_client_certificate(
    plain: str, certificates: tuple[Path, dict[str, ssl.SSLContext]], monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, client = certificates[0], str(certificates[0].with_name(f"{CLIENT}.pem"))
    assert await answers(plain)
    async with serve_tls(plain, server_context(certificates[0], SERVER, demands_client=True)) as address:
        assert "speaks TLS, and we do not: set TEMPORAL_TLS=true" in await why_not(address)
        monkeypatch.setenv("TEMPORAL_TLS", "true")
        assert "presents a certificate that we cannot verify" in await why_not(address)
        monkeypatch.setenv("TEMPORAL_TLS_SERVER_CA_CERT_PATH", str(authority))
        wrong_name = await why_not(address)
        assert ("presents a certificate that we cannot verify" in wrong_name, "TEMPORAL_TLS_SERVER_NAME" in wrong_name) == (True, True)
        monkeypatch.setenv("TEMPORAL_TLS_SERVER_NAME", SERVER)
        unknown = await why_not(address)
        assert ("client certificate" in unknown, "set TEMPORAL_TLS_CLIENT_CERT_PATH" in unknown) == (True, True)
        monkeypatch.setenv("TEMPORAL_TLS_CLIENT_CERT_PATH", client)
        monkeypatch.setenv("TEMPORAL_TLS_CLIENT_KEY_PATH", client)
        assert await answers(address)
    assert "does not speak TLS" in await why_not(plain)


async def test_a_profile_file_can_configure_tls_without_a_client_certificate(
    plain: str, certificates: tuple[Path, dict[str, ssl.SSLContext]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with serve_tls(plain, server_context(certificates[0], SERVER)) as address:
        profile = tmp_path / "temporal.toml"
        profile.write_text(
            f'[profile.ours]\naddress = "{address}"\nnamespace = "default"\n'
            f'[profile.ours.tls]\nserver_name = "{SERVER}"\nserver_ca_cert_path = "{certificates[0]}"\n'
        )
        monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(profile))
        monkeypatch.setenv("TEMPORAL_PROFILE", "ours")
        settings = with_temporal_profile(Settings())
        assert settings.temporal_address == address
        assert await answers(settings.temporal_address)
        # Our own setting wins.
        assert with_temporal_profile(Settings(temporal_address="temporal:7233")).temporal_address == "temporal:7233"


@pytest.mark.parametrize(
    "reply, why",
    [
        (b"", "hangs up after the TLS handshake (no reason given), perhaps because it demands a client certificate"),
        (b"HTTP/1.1 403 Forbidden", "accepts our TLS connection, but refuses us; check TEMPORAL_API_KEY"),
    ],
)
def test_each_failure_behind_tls_has_its_own_message(certificates: tuple[Path, dict[str, ssl.SSLContext]], reply: bytes, why: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with server_context(certificates[0], SERVER).wrap_socket(listening.accept()[0], server_side=True) as secured:
                secured.recv(1024)
                secured.sendall(reply)

        address, ours = f"127.0.0.1:{listening.getsockname()[1]}", ClientConfigTLS(server_name=SERVER, server_root_ca_cert=certificates[0])
        thread = threading.Thread(target=serve)
        thread.start()
        assert explain_failure(address, ClientConfigProfile(tls=ours)).startswith(why)
        thread.join()
        none = Path("/nonexistent.pem")
        unusable = "cannot be reached: our own certificate or key cannot be used ([Errno 2] No such file"
        tls = replace(ours, client_cert=none, client_private_key=none)
        assert explain_failure(address, ClientConfigProfile(tls=tls)).startswith(unusable)


async def test_an_api_key_is_sent_over_tls(plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_API_KEY", "hush-hush")
    message = await why_not(plain)
    assert ("does not speak TLS" in message, "hush-hush" in message) == (True, False)


async def test_a_server_that_is_not_temporal_and_an_unreachable_one_get_different_errors() -> None:
    silent = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    assert "accepts connections, but does not answer like Temporal" in await why_not(f"127.0.0.1:{port}")
    silent.close()
    await silent.wait_closed()
    assert "does not answer (Connection refused); check JUSTENOUGH_TEMPORAL_ADDRESS" in await why_not(f"127.0.0.1:{port}")
    assert "does not answer (" in await why_not("no-such-host.invalid:7233")


async def test_a_call_ends_if_a_firewall_swallows_the_attempt_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the system tries to connect for two minutes, during which the call's own timeout does not run."""
    monkeypatch.setattr("justenough.adapters.temporal.RECONNECT_TIMEOUT", timedelta(seconds=0.5))
    with swallow_connections() as address:
        client = await connect_temporal(Settings(temporal_address=address), identity="test", lazy=True)
        with pytest.raises(RuntimeError, match="Failed client connect"):
            await asyncio.wait_for(client.count_workflows("WorkflowId = '-'", rpc_timeout=timedelta(seconds=5)), 60)


async def test_a_connection_that_a_firewall_has_forgotten_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the client notices this after 45 seconds, but a session without heartbeats is lost after ten."""
    assert KEEP_ALIVE.interval_millis + KEEP_ALIVE.timeout_millis <= 15_000
    monkeypatch.setattr("justenough.adapters.temporal.KEEP_ALIVE", KeepAliveConfig(interval_millis=200, timeout_millis=200))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        client = await connect_temporal(Settings(temporal_address=f"{host}:{port}"), identity="test", lazy=True)
        with pytest.raises(RuntimeError, match="KeepAliveTimedOut"):
            await asyncio.wait_for(client.count_workflows("WorkflowId = '-'", rpc_timeout=timedelta(seconds=60)), 30)


@pytest.mark.parametrize("turns", range(6))
async def test_no_cancellation_is_lost_if_it_arrives_as_the_connection_fails(monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    """If it were lost, a console that cannot listen on its port would keep running, and no signal would end it."""
    failed, explained = asyncio.Event(), threading.Event()

    async def connect(*_: object, **__: object) -> None:
        await failed.wait()
        raise RuntimeError("connection refused")

    monkeypatch.setattr("justenough.adapters.temporal.Client.connect", connect)
    monkeypatch.setattr("justenough.adapters.temporal.explain_failure", lambda *_: explained.wait(60))
    connecting = asyncio.create_task(connect_temporal(Settings(temporal_address="127.0.0.1:1"), identity="test"))
    await asyncio.sleep(0.01)
    failed.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    explained.set()


async def test_a_namespace_gets_the_search_attributes_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = await WorkflowEnvironment.start_local(dev_server_existing_path=str(PROGRAMS / "temporal"))
    async with bare:
        with capture_logs() as logged:
            await prepare_namespace(bare.client)
            await prepare_namespace(bare.client)
        assert [(entry["event"], entry["names"]) for entry in logged] == [("search attributes created", SEARCH_ATTRIBUTES)]
        text = AddSearchAttributesRequest(
            namespace="default", search_attributes={"JustEnoughOther": IndexedValueType.INDEXED_VALUE_TYPE_TEXT}
        )
        await bare.client.operator_service.add_search_attributes(text)
        monkeypatch.setattr("justenough.adapters.temporal.SEARCH_ATTRIBUTES", ("JustEnoughOther",))
        with pytest.raises(NamespaceUnfit, match="JustEnoughOther in namespace default must have the type Keyword"):
            await prepare_namespace(bare.client)
        elsewhere = await connect_temporal(
            Settings(temporal_address=bare.client.service_client.config.target_host, temporal_namespace="nowhere"), identity="test"
        )
        with pytest.raises(
            NamespaceUnfit, match="no namespace nowhere: create it \\(temporal operator namespace create --namespace nowhere"
        ):
            await prepare_namespace(elsewhere)


class Administration:
    """Temporal's administration, with the answers that missing rights or an outage would cause."""

    def __init__(self, *, lists: RPCStatusCode, adds: RPCStatusCode = RPCStatusCode.OK) -> None:
        self._lists, self._adds = lists, adds

    async def list_search_attributes(self, *_: object, **__: object) -> ListSearchAttributesResponse:
        if self._lists is not RPCStatusCode.OK:
            raise RPCError("no", self._lists, b"")
        return ListSearchAttributesResponse()

    async def add_search_attributes(self, *_: object, **__: object) -> None:
        raise RPCError("no", self._adds, b"")


def client_with(administration: Administration) -> Any:
    return SimpleNamespace(namespace="prod", operator_service=administration)


async def test_search_attributes_that_we_may_not_create_are_named_with_the_command() -> None:
    names = " ".join(f"--name {name} --type Keyword" for name in SEARCH_ATTRIBUTES)
    why = f"Temporal's namespace prod lacks search attributes, and does not let us create them (no): create them (temporal operator search-attribute create --namespace prod {names})"
    with pytest.raises(NamespaceUnfit, match=f"^{re.escape(why)}$"):
        await prepare_namespace(client_with(Administration(lists=RPCStatusCode.OK, adds=RPCStatusCode.PERMISSION_DENIED)))


async def test_a_worker_starts_although_it_may_not_see_the_search_attributes_but_not_while_temporal_is_away() -> None:
    with capture_logs() as logged:
        await prepare_namespace(client_with(Administration(lists=RPCStatusCode.PERMISSION_DENIED)))
    assert [entry["event"] for entry in logged] == ["search attributes cannot be checked; they must exist"]
    with pytest.raises(TemporalDown, match=r"^Temporal does not list the search attributes of namespace prod: no$"):
        await prepare_namespace(client_with(Administration(lists=RPCStatusCode.UNAVAILABLE)))


@pytest.mark.parametrize("program", ["worker", "console"])
def test_a_program_with_an_unknown_profile_says_so_in_one_sentence(program: str, tmp_path: Path) -> None:
    environment = {**os.environ, "TEMPORAL_PROFILE": "other", "JUSTENOUGH_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-P", "-m", program], env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith(f"{program} cannot start: Temporal's profile cannot be read: ")


@pytest.mark.parametrize("address", ["temporal", "http://temporal", "temporal:port", ""])
async def test_an_address_without_a_port_is_refused_with_an_example(address: str) -> None:
    with pytest.raises(TemporalProfileInvalid, match="is not a host and port, as in temporal:7233"):
        await connect_temporal(Settings(temporal_address=address), identity="test")


@pytest.mark.parametrize(
    "variable, value, why",
    [
        ("TEMPORAL_TLS_CLIENT_CERT_PATH", "/nonexistent/cert.pem", "names /nonexistent/cert.pem, which cannot be read: No such file"),
        ("TEMPORAL_PROFILE", "other", "Temporal's profile cannot be read: .*other.*check TEMPORAL_PROFILE"),
        ("TEMPORAL_CONFIG_FILE", "/etc/passwd", "Temporal's profile cannot be read: .*check TEMPORAL_PROFILE, TEMPORAL_CONFIG_FILE"),
    ],
)
async def test_a_profile_that_cannot_be_used_is_reported_by_its_place(
    variable: str, value: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(TemporalProfileInvalid, match=f"(?s){why}"):
        await connect_temporal(Settings(), identity="test")
