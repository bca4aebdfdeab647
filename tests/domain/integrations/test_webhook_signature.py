"""Standard Webhooks: which deliveries are believed. The first vector is the specification's own."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.core.secret import Secret
from justenough.domain.integrations.webhook_signature import TOLERANCE_S, build_signature, parse_signing_secret, why_delivery_invalid

SECRET = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
ID, AT, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
GOOD = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
OTHER = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def why_invalid(body: bytes = BODY, *, now: int = AT, keys: tuple[bytes, ...] | None = None, **changes: str) -> str | None:
    headers = {"webhook-id": ID, "webhook-timestamp": str(AT), "webhook-signature": GOOD}
    sent = {**headers, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return why_delivery_invalid(sent, body, (parse_signing_secret(SECRET),) if keys is None else keys, now=datetime.fromtimestamp(now, UTC))


def test_the_specifications_own_example_has_the_expected_signature() -> None:
    assert build_signature(parse_signing_secret(SECRET), delivery=ID, timestamp=str(AT), body=BODY) == GOOD
    assert why_invalid() is None


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook_signature": f"{OTHER} {GOOD}"},
        {"webhook_signature": f"v1a,something {GOOD} {OTHER}"},
        {"now": AT + TOLERANCE_S},
        {"now": AT - TOLERANCE_S},
        {"keys": (b"k" * 24, parse_signing_secret(SECRET))},
    ],
)
def test_one_good_signature_among_several_within_five_minutes_is_enough(changes: dict[str, object]) -> None:
    assert why_invalid(**changes) is None  # type: ignore[arg-type] # names and values of a table


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"webhook_id": ""}, "are required"),
        ({"webhook_id": "msg.1"}, "are required"),
        ({"webhook_id": "msg 1"}, "are required"),
        ({"webhook_timestamp": ""}, "are required"),
        ({"webhook_timestamp": "-1614265330"}, "are required"),
        ({"webhook_timestamp": "1614265330.0"}, "are required"),
        ({"webhook_timestamp": "\u0661614265330"}, "are required"),
        ({"webhook_signature": ""}, "are required"),
        ({"webhook_id": "msg_other"}, "none of its signatures"),
        ({"webhook_timestamp": str(AT + 1)}, "none of its signatures"),
        ({"webhook_signature": OTHER}, "none of its signatures"),
        ({"webhook_signature": GOOD.replace("v1,", "v2,")}, "none of its signatures"),
        ({"webhook_signature": GOOD.removeprefix("v1,")}, "none of its signatures"),
        ({"webhook_signature": GOOD.replace(",", " ")}, "none of its signatures"),
        ({"webhook_signature": "v1,\u00e9"}, "none of its signatures"),
        ({"webhook_signature": " ".join([OTHER] * 20 + [GOOD])}, "none of its signatures"),
        ({"body": BODY + b" "}, "none of its signatures"),
        ({"keys": ()}, "none of its signatures"),
        ({"keys": (b"k" * 24,)}, "none of its signatures"),
        ({"now": AT + TOLERANCE_S + 1}, "300 seconds"),
        ({"now": AT - TOLERANCE_S - 1}, "300 seconds"),
    ],
)
def test_any_other_delivery_is_rejected_with_the_reason(changes: dict[str, object], reason: str) -> None:
    assert reason in str(why_invalid(**changes))  # type: ignore[arg-type] # names and values of a table


@given(st.binary(min_size=24, max_size=64), st.binary(max_size=200), st.integers(0, 2**31))
def test_a_signature_is_valid_with_its_own_key_and_no_other(key: bytes, body: bytes, at: int) -> None:
    sent = {
        "webhook-id": "m",
        "webhook-timestamp": str(at),
        "webhook-signature": build_signature(key, delivery="m", timestamp=str(at), body=body),
    }
    now = datetime.fromtimestamp(at, UTC) + timedelta(seconds=1)
    assert why_delivery_invalid(sent, body, (key,), now=now) is None
    assert why_delivery_invalid(sent, body, (bytes([key[0] ^ 1]) + key[1:],), now=now)
    assert why_delivery_invalid(sent, body + b"\0", (key,), now=now)


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_not base64", "whsec_" + base64.b64encode(b"k" * 23).decode(), "whsec_MfKQ9r8GKYqrTwjUPD8-_PZIo2LaLaSw"]
)
def test_an_invalid_signing_secret_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match="whsec_ followed by at least 24 bytes") as told:
        parse_signing_secret(Secret(text))
    assert len(text) < 10 or text not in str(told.value)
