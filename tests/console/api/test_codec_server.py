"""What the console writes into Temporal is encrypted, and its codec server decrypts it for those who may read everything."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google.protobuf import json_format
from temporalio.api.common.v1 import Payloads

from justenough.adapters.payload_codec import ENCODING
from tests.console.served_console import Served

pytestmark = pytest.mark.servers


async def written_by_console(served: Served) -> dict[str, Any]:
    """Return the arguments of a job's workflow as Temporal has them, in its JSON."""
    job = (await served.launch())["id"]
    history = await served.temporal.get_workflow_handle(job).fetch_history()
    found: dict[str, Any] = json_format.MessageToDict(history.events[0].workflow_execution_started_event_attributes.input)
    return found


async def test_temporal_stores_ciphertext_and_a_person_who_reads_everything_can_decrypt_it(served: Served) -> None:
    written = await written_by_console(served)
    (payload,) = written["payloads"]
    assert base64.b64decode(payload["metadata"]["encoding"]) == ENCODING
    assert b"Refund" not in base64.b64decode(payload["data"])
    answer = await served.http.post("/codec/decode", json=written, headers=served.people["auditor"].bearer)
    assert answer.status_code == 200, answer.text
    (clear,) = answer.json()["payloads"]
    assert json.loads(base64.b64decode(clear["data"]))["spec"]["task"] == "Refund ticket 4711"


async def test_a_payload_that_a_reader_encodes_can_be_decoded_again(served: Served) -> None:
    clear = {"payloads": [{"metadata": {"encoding": base64.b64encode(b"json/plain").decode()}, "data": base64.b64encode(b"1").decode()}]}
    headers = served.people["lead"].bearer
    encoded = await served.http.post("/codec/encode", json=clear, headers=headers)
    assert json_format.ParseDict(encoded.json(), Payloads()).payloads[0].metadata["encoding"] == ENCODING
    assert (await served.http.post("/codec/decode", json=encoded.json(), headers=headers)).json() == clear


@pytest.mark.parametrize(
    "who, status, detail",
    [
        (None, 401, "an identity token is required (temporal --codec-auth"),
        ("ops", 403, "needs one of the groups"),
        ("nobody", 403, "needs one of the groups"),
    ],
)
async def test_a_caller_who_may_not_read_everything_cannot_decode_payloads(
    served: Served, who: str | None, status: int, detail: str
) -> None:
    written = await written_by_console(served)
    answer = await served.http.post("/codec/decode", json=written, headers=served.people[who].bearer if who else {})
    assert answer.status_code == status
    assert detail in answer.json()["detail"]
    assert "Refund" not in answer.text


async def test_a_body_that_is_not_payloads_is_refused(served: Served) -> None:
    answer = await served.http.post("/codec/decode", content=b'{"payloads": [1]}', headers=served.people["auditor"].bearer)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("the body: must be payloads in Temporal's JSON")
    assert (await served.http.get("/codec/decode")).status_code == 405
    assert (await served.http.post("/codec/other")).status_code == 404


async def test_no_script_of_another_origin_reads_the_answers(served: Served) -> None:
    asked = {"Origin": "https://temporal.example.com", "Access-Control-Request-Method": "POST"}
    for headers in (asked, {**asked, "Access-Control-Request-Headers": "authorization"}):
        answer = await served.http.options("/codec/decode", headers=headers)
        assert "access-control-allow-origin" not in answer.headers
