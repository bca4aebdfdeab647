"""What senders of events, and people who list or run schedules, are told while the console has no valid configuration."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from justenough.adapters.configuration.folder import ConfigFolder
from tests.console.outbox_rig import SECRET, write_config
from tests.console.served_console import Served, serve_console

pytestmark = pytest.mark.servers

HOOK = {"name": "siem", "url": "https://siem.example.com/hooks", "events": ["*"], "signing_secret": SECRET}


async def test_until_a_console_has_read_a_valid_configuration_it_refuses_nothing_for_good(served: Served, tmp_path: Path) -> None:
    folder = write_config(tmp_path / "config", webhooks=[HOOK])
    good = (folder / "triggers.yaml").read_text()
    (folder / "triggers.yaml").write_text("triggers: [the-canary")
    config = ConfigFolder(folder)
    console = dataclasses.replace(served.console, deps=dataclasses.replace(served.console.deps, config=config))
    async with serve_console(console) as http:
        # A sender may not send an event again after a 401. It is a stranger, so it is not told what is wrong.
        event = await http.post("/api/v1/triggers/ticket-created", content=b"{}")
        assert (event.status_code, "send this delivery again later" in event.json()["detail"]) == (503, True)
        assert "canary" not in event.text
        bearer = served.people["ops"].bearer
        run = await http.post("/api/v1/schedules/nightly/run", json={}, headers=bearer)
        for told in (run, await http.get("/api/v1/schedules", headers=bearer)):
            assert (told.status_code, "has no valid configuration" in told.json()["detail"]) == (503, True), told.text

        (folder / "triggers.yaml").write_text(good)
        config.refresh()
        assert (await http.post("/api/v1/triggers/ticket-created", content=b"{}")).status_code == 401
        assert (await http.post("/api/v1/schedules/nightly/run", json={}, headers=bearer)).status_code == 404
        assert (await http.get("/api/v1/schedules", headers=bearer)).json()["items"] == []
