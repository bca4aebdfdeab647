"""A secret leaves its holder by `reveal()` and by nothing else."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import structlog
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from rich.pretty import pretty_repr

from justenough.domain.core.secret import Secret

VALUE = "canary-7f3a"


def test_reveal_returns_the_value_of_a_secret() -> None:
    assert Secret(VALUE).reveal() == VALUE


@pytest.mark.parametrize(
    "shown",
    [
        repr,
        str,
        ascii,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>30}",
        lambda secret: f"{secret:>30}",
        lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - one of the ways
        "{:>30}".format,
        lambda secret: repr([secret, {"a": (secret,)}]),
        lambda secret: json.dumps({"a": secret}, default=str),
        lambda secret: pretty_repr({"a": secret}),
        lambda secret: structlog.processors.JSONRenderer()(None, "info", {"event": "x", "password": secret}),
        lambda secret: logging.makeLogRecord({"msg": "%s", "args": (secret,)}).getMessage(),
        lambda secret: str(ValueError(secret)),
        dir,
    ],
)
def test_no_way_of_printing_a_secret_shows_its_value(shown: Callable[[Secret], Any]) -> None:
    assert VALUE not in str(shown(Secret(VALUE)))


@pytest.mark.parametrize(
    "serialised",
    [
        json.dumps,
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        vars,
        list,
        len,
        lambda secret: ",".join({"a": secret}.values()),
        lambda secret: b"%b" % secret,
        lambda secret: "a" + secret,
        lambda secret: TypeAdapter(Any).dump_json(secret),
        yaml.safe_dump,
    ],
)
def test_no_way_of_serialising_a_secret_includes_its_value(serialised: Callable[[Secret], Any]) -> None:
    with pytest.raises(Exception, match=r".") as caught:
        serialised(Secret(VALUE))
    assert VALUE not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_pickle_protocol_accepts_a_secret(protocol: int) -> None:
    with pytest.raises(TypeError):
        pickle.dumps({"a": Secret(VALUE)}, protocol)


def test_a_traceback_with_every_local_shows_no_value() -> None:
    def fails(secret: Secret) -> None:
        held = {"password": secret}
        raise ValueError(held)

    with pytest.raises(ValueError, match=r"Secret") as caught:
        fails(Secret(VALUE))
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "Secret(…)" in shown
    assert VALUE not in shown


@given(st.text(), st.text())
def test_secrets_are_equal_when_their_values_are(one: str, other: str) -> None:
    assert (Secret(one) == Secret(other)) == (one == other)
    assert hash(Secret(one)) == hash(Secret(one))
    assert Secret(one) != one
