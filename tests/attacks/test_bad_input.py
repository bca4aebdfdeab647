"""Bad input through the API of a whole installation: a clear error by path, and nothing is stored or started."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from typing import Any

import pytest

from tests.attacks.intruder import Intruder
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Shop, access, spec

pytestmark = pytest.mark.servers


def archive(name: str = "file", kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """Return a gzipped tar with one entry."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as made:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, link
        made.addfile(entry)
    return gzip.compress(plain.getvalue(), mtime=0)


def bomb() -> bytes:
    """Return a gzipped tar of about one megabyte with one file of one gigabyte."""
    entry = tarfile.TarInfo("zeros")
    entry.size = 2**30
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as stream:
        stream.write(entry.tobuf())
        block = bytes(2**24)
        for _ in range(2**6):
            stream.write(block)
    return packed.getvalue()


BUNDLES = {
    "leaves its folder": (archive("../file"), "leaves the folder"),
    "leaves its folder on the way": (archive("a/../../file"), "leaves the folder"),
    "absolute": (archive("/etc/cron.d/file"), "absolute path"),
    "symbolic link": (archive("link", tarfile.SYMTYPE, "/etc/shadow"), "no links"),
    "hard link": (archive("link", tarfile.LNKTYPE, "../../seal.key"), "no links"),
    "device": (archive("null", tarfile.CHRTYPE), "no links, devices"),
    "pipe": (archive("pipe", tarfile.FIFOTYPE), "no links, devices"),
    "no archive": (gzip.compress(b"not a tar"), "not a readable .tar.gz"),
}


def assert_rejected(ops: Human, auditor: Human, intruder: Intruder, content: bytes, why: str) -> None:
    """Fail unless a bundle is rejected for this reason and not stored."""
    answer = ops.api.post("bundles", content=content, headers={"Content-Type": "application/gzip"})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert why in answer.json()["errors"][0]["message"]
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    order = ops.order(spec("true", access()), bundle=digest)
    launch = ops.api.post("jobs", json=order)
    assert (launch.status_code, launch.json()["errors"][0]["path"]) == (422, "bundle")
    assert auditor.api.get(f"jobs/{order['id']}").status_code == 404
    assert not intruder.has_workflow(order["id"])


@pytest.mark.parametrize("content, why", BUNDLES.values(), ids=BUNDLES)
def test_a_bad_bundle_is_rejected_and_not_stored(ops: Human, auditor: Human, intruder: Intruder, content: bytes, why: str) -> None:
    assert_rejected(ops, auditor, intruder, content, why)


def test_a_small_bundle_that_unpacks_to_a_gigabyte_is_rejected(ops: Human, auditor: Human, intruder: Intruder) -> None:
    content = bomb()
    assert len(content) < 10 * 2**20
    assert_rejected(ops, auditor, intruder, content, "MB inflated")


INJECTED: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    **{f"{char!r} in the data scope": ({"data_scope": {"tenant": f"acme{char}x"}}, {}, "data_scope.tenant") for char in "{},/*\n"},
    **{f"{char!r} in a param": ({}, {"ticket": f"1{char}2"}, "params.ticket") for char in "{,/\n"},
    "a placeholder nobody fills": ({"task": "Look at {order}"}, {}, "task"),
    "another tenant by path": ({"data_scope": {"tenant": "../globex"}}, {}, "data_scope.tenant"),
}


@pytest.mark.parametrize("changes, params, path", INJECTED.values(), ids=INJECTED)
def test_params_cannot_inject_anything_into_a_spec(
    ops: Human, auditor: Human, shop: Shop, intruder: Intruder, changes: dict[str, Any], params: dict[str, str], path: str
) -> None:
    order = ops.order(spec("true", access(), params={"ticket": "1"}, **changes), params=params)
    answer = ops.api.post("jobs", json=order)
    assert answer.status_code == 422, answer.text
    assert [error["path"] for error in answer.json()["errors"]] == [path]
    assert auditor.api.get(f"jobs/{order['id']}").status_code == 404
    assert not intruder.has_workflow(order["id"])
    assert shop.tokens_of(order["id"]) == []


def test_a_stale_and_a_second_decision_are_rejected(ops: Human, lead: Human, auditor: Human) -> None:
    job = ops.launch(spec("true", access(action="write")))
    request = ops.until(job, "awaiting_approval")["requests"][0]
    stale = lead.answer({**request, "digest": "sha256:" + "0" * 64})
    assert stale.status_code == 412, stale.text
    wrong = auditor.answer(request)
    assert (wrong.status_code, "support-leads" in wrong.json()["detail"]) == (403, True)
    own = ops.answer(request)
    assert own.status_code == 403
    lead.decide(request)
    assert lead.answer(request).status_code == 409
    assert ops.until(job)["state"] == "succeeded"


def test_a_ttl_beyond_the_request_is_refused_by_path(ops: Human, lead: Human) -> None:
    job = ops.launch(spec("true", access(action="write")))
    request = ops.until(job, "awaiting_approval")["requests"][0]
    wide = lead.answer(request, ttl=request["ttl"] + 1)
    assert (wide.status_code, wide.json()["errors"][0]["path"]) == (422, "statement.ttl")
    assert lead.answer(request, "deny").status_code in ACCEPTED_STATUSES
    assert ops.until(job)["state"] == "denied"
