"""Bundles, output and idempotency keys."""

from __future__ import annotations

import pytest

from justenough.adapters.store import Store
from justenough.adapters.store.job_logs import MAX_LOG_BYTES
from justenough.domain.core.errors import Conflict
from tests.adapters.store.event_samples import JOB, NOW, later, submission

DIGEST = "sha256:" + "a" * 64


def test_a_bundle_is_read_back_byte_for_byte_and_is_never_replaced(store: Store) -> None:
    content = bytes(range(256)) * 10
    assert store.bundles.get(DIGEST) is None
    assert store.bundles.add(DIGEST, content, at=NOW)
    assert not store.bundles.add(DIGEST, b"another", at=NOW)
    assert store.bundles.get(DIGEST) == content


def test_only_a_bundle_that_no_job_uses_counts_and_is_pruned_an_hour_after_its_last_upload(store: Store) -> None:
    used, unused, again = (f"sha256:{letter * 64}" for letter in "abc")
    for digest in (used, unused, again):
        store.bundles.add(digest, b"content", at=NOW, by="e-ops")
    store.ledger.append([submission(bundle=used)])
    assert store.bundles.count_unused("e-ops", since=later(-1)) == 2
    assert store.bundles.count_unused("e-other", since=later(-1)) == 0
    store.bundles.add(again, b"content", at=later(60), by="e-other")
    assert [store.bundles.count_unused(person, since=later(-1)) for person in ("e-ops", "e-other")] == [1, 1]
    assert store.bundles.prune(before=later(30)) == 1
    assert [store.bundles.get(digest) is not None for digest in (used, unused, again)] == [True, False, True]
    # What was pruned can be uploaded again.
    assert store.bundles.add(unused, b"content", at=later(61))


def test_output_is_read_in_order_and_from_a_given_position(store: Store) -> None:
    for seq in (0, 2, 1):
        store.logs.append(JOB, seq, f"line {seq}\n", later(seq))
    store.logs.append("j-dev-other", 0, "another's", NOW)
    assert [(chunk.seq, chunk.text, chunk.at) for chunk in store.logs.chunks(JOB)] == [(n, f"line {n}\n", later(n)) for n in range(3)]
    assert [chunk.seq for chunk in store.logs.chunks(JOB, after_seq=0, limit=1)] == [1]


def test_a_chunk_that_is_sent_again_is_kept_once(store: Store) -> None:
    store.logs.append(JOB, 0, "first", NOW)
    store.logs.append(JOB, 0, "again", later(1))
    assert [chunk.text for chunk in store.logs.chunks(JOB)] == ["first"]


def test_output_that_is_not_clean_text_is_kept_readable(store: Store) -> None:
    store.logs.append(JOB, 0, "a\x00b\ud800c", NOW)
    assert store.logs.chunks(JOB)[0].text == "a\ufffdb\ufffdc"


def test_output_over_the_limit_ends_with_one_line_that_says_so(store: Store) -> None:
    half = "ü" * (MAX_LOG_BYTES // 4) + "\n"
    for seq in range(4):
        store.logs.append(JOB, seq, half, NOW)
    chunks = store.logs.chunks(JOB)
    whole = "".join(chunk.text for chunk in chunks)
    assert whole.endswith("\nlog truncated\n")
    assert whole.count("log truncated") == 1
    assert MAX_LOG_BYTES - 4 <= len(whole.encode()) - len("\nlog truncated\n") <= MAX_LOG_BYTES
    assert store.logs.chunks("j-dev-other") == ()


def test_an_idempotency_key_stands_for_the_first_job_of_its_person(store: Store) -> None:
    assert store.idempotency.remember("e-ops", "key", "j-dev-1", "d1").job == "j-dev-1"
    assert store.idempotency.remember("e-ops", "key", "j-dev-2", "d1").job == "j-dev-1"
    assert store.idempotency.remember("e-other", "key", "j-dev-3", "d3").job == "j-dev-3"


def test_an_idempotency_key_used_for_another_order_is_a_conflict(store: Store) -> None:
    store.idempotency.remember("e-ops", "key", "j-dev-1", "d1")
    with pytest.raises(Conflict, match="j-dev-1"):
        store.idempotency.remember("e-ops", "key", "j-dev-2", "d2")
