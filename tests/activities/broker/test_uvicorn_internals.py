"""Our HTTP protocols use uvicorn's internals: every name that they need is there, and no version that may lack one can be installed."""

from __future__ import annotations

import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import uvicorn
from packaging.requirements import Requirement
from packaging.version import Version
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState


@pytest.mark.parametrize(
    "name",
    [
        "connection_made",
        "connection_lost",
        "data_received",
        "on_headers_complete",
        "on_body",
        "on_message_complete",
        "on_response_complete",
    ],
)
def test_the_protocol_has_the_methods_that_the_listener_extends(name: str) -> None:
    assert callable(getattr(HttpToolsProtocol, name))


async def test_the_protocol_has_the_attributes_that_the_listener_reads() -> None:
    assert {"config", "server_state", "app_state"} <= set(inspect.signature(HttpToolsProtocol).parameters)
    config = uvicorn.Config(app=lambda: None, http="httptools", lifespan="off", log_config=None)
    config.load()
    protocol = HttpToolsProtocol(config=config, server_state=ServerState(), app_state={})
    assert protocol.connections == set()
    assert len(protocol.pipeline) == 0
    assert protocol.transport is None


def test_the_requirement_of_uvicorn_has_an_upper_bound() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (bound,) = [one for one in map(Requirement, project["dependencies"]) if one.name == "uvicorn"]
    assert Version(version("uvicorn")) in bound.specifier
    assert "99" not in bound.specifier
