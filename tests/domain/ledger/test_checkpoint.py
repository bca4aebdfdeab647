"""A checkpoint is a signed note: its signature is valid for no other text, name or key; and anything else is reported as no checkpoint."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

from justenough.domain.core.errors import InvalidInput
from justenough.domain.ledger.checkpoint import read_checkpoints
from justenough.domain.ledger.public_keys import read_keys
from tests.domain.ledger.signed_ledger import LEAD, LEDGER, ORIGIN, checkpoint_of, public, small_ledger

NOTE = checkpoint_of(small_ledger()).note
BY_VERSION = {1: public(LEDGER)}


def with_key_id(key_id: bytes) -> str:
    """Return the note with another key id before its valid signature."""
    head, _, encoded = NOTE.removesuffix("\n").rpartition(" ")
    return f"{head} {base64.b64encode(key_id + base64.b64decode(encoded)[4:]).decode()}\n"


def with_more_lines(count: int) -> str:
    return NOTE.replace("\n\n", "\n" + "more\n" * count + "\n")


def test_a_checkpoint_has_the_text_and_signature_of_a_signed_note() -> None:
    text, signatures = NOTE.split("\n\n")
    origin, size, root = text.split("\n")
    assert (origin, size, len(base64.b64decode(root))) == ("justenough/dev/ledger", "11", 32)
    dash, name, encoded = signatures.removesuffix("\n").split(" ")
    raw = base64.b64decode(encoded)
    assert (dash, name, len(raw)) == ("\u2014", origin, 4 + 64)
    assert raw[:4] == hashlib.sha256(f"{origin}\n".encode() + b"\x01" + public(LEDGER)).digest()[:4]
    LEDGER.public_key().verify(raw[4:], f"{text}\n".encode())


def test_a_file_can_hold_several_checkpoints() -> None:
    lines = small_ledger()
    notes = [checkpoint_of(lines, size=size).note for size in (3, 7)]
    assert [found.size for found in read_checkpoints("".join(notes))] == [3, 7]
    assert [found.note for found in read_checkpoints("\n".join(notes) + "\n")] == notes


@pytest.mark.parametrize(
    "note",
    [
        NOTE.replace("\n11\n", "\n12\n"),
        NOTE.replace(f"{ORIGIN}\n", "justenough/prod/ledger\n", 1),
        NOTE.replace(f"\u2014 {ORIGIN}", "\u2014 somebody"),
        NOTE.replace(f"\u2014 {ORIGIN}", "\u2014 anybody"),
        with_key_id(bytes(4)),
        with_key_id(b"\xff" * 4),
        re.sub(r".{5}=*\n$", "\n", NOTE),
        checkpoint_of(small_ledger(), key=LEAD).note,
    ],
    ids=[
        "another size",
        "another ledger",
        "a later name",
        "an earlier name",
        "the lowest key id",
        "the highest key id",
        "a cut signature",
        "another key",
    ],
)
def test_the_signature_of_a_checkpoint_is_invalid_for_any_change_of_it(note: str) -> None:
    (kept,), (changed,) = read_checkpoints(NOTE), read_checkpoints(note)
    assert kept.is_signed_by(BY_VERSION)
    assert not changed.is_signed_by(BY_VERSION)
    assert not kept.is_signed_by({})


def test_a_checkpoint_may_have_lines_of_other_programs() -> None:
    (found,) = read_checkpoints(with_more_lines(13))
    assert (found.size, found.is_signed_by(BY_VERSION)) == (11, False)


def test_one_of_several_signatures_is_enough() -> None:
    other = checkpoint_of(small_ledger(), key=LEAD).note.partition("\n\n")[2]
    (found,) = read_checkpoints(NOTE + other)
    assert found.is_signed_by(BY_VERSION)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        NOTE + "more",
        "more\n\n" + NOTE,
        NOTE.replace("\n11\n", "\neleven\n"),
        NOTE.replace("=\n\n", "!=\n\n"),
        NOTE.partition("\n\n")[0] + "\n",
        with_more_lines(14),
        "x\n" * 1_000_000,
    ],
    ids=["empty", "a text", "text behind it", "text before it", "no number", "no root", "no signature", "17 lines", "a large file"],
)
def test_a_text_that_is_not_a_checkpoint_is_refused_as_such(text: str) -> None:
    with pytest.raises(InvalidInput, match="not a signed checkpoint"):
        list(read_checkpoints(text))


@pytest.mark.parametrize("key", ["A", "AAAA", "no key"])
def test_a_file_whose_key_is_not_a_key_is_refused_as_such(key: str) -> None:
    versions = [{"version": 1, "public_key": key, "valid_from": "2026-01-31T00:00:00Z"}]
    text = json.dumps({"origin": ORIGIN, "checkpoint_keys": versions, "people": []})
    with pytest.raises(InvalidInput, match="is not a file that `justenough ledger keys` writes"):
        read_keys(text)
