"""Checkpoints are signed in Vault when they are due, recorded and written elsewhere; the ledger is compared with all of them."""

from __future__ import annotations

import resource
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from console.services import checkpoints
from console.services.background_reads import BackgroundReads
from console.services.checkpoints import (
    MAX_AGE,
    LedgerBroken,
    append_to_file,
    ledger_keys,
    prove_consistency,
    prove_inclusion,
    sign_if_due,
    verify_ledger,
)
from justenough.adapters.store import Store
from justenough.adapters.store.ledger_repository import LedgerRepository
from justenough.domain.core.errors import NotFound, RetryLater
from justenough.domain.evidence.aggregator import ReportPeriod
from justenough.domain.ledger import merkle
from justenough.domain.ledger.checkpoint import checkpoint_text, read_checkpoints, signed_note
from justenough.domain.ledger.events import EventType, build_event
from justenough.services.dependencies import Deps, utc_now
from tests.adapters.store import event_samples as samples
from tests.adapters.store.test_ledger_writer import tamper
from tests.console.served_console import Served
from tests.support.evidence_samples import line
from tests.support.merkle_proofs import is_consistent, root_by_inclusion

pytestmark = pytest.mark.servers


class Ledger:
    """A store of a test's own, with the console's Vault and a clock that the test sets."""

    def __init__(self, served: Served, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'store.db'}"
        self.store = Store(self.url)
        self.store.migrate()
        self.ahead = timedelta()
        self.written = folder / "checkpoints"
        settings = served.console.deps.settings.model_copy(update={"checkpoint_file": self.written})
        self.deps: Deps = replace(served.console.deps, store=self.store, settings=settings, now=lambda: utc_now() + self.ahead)

    def grow(self, count: int = 1) -> None:
        """Record this many further entries."""
        first = self.store.ledger.head().position
        self.store.ledger.append(
            build_event(EventType.JOB_REFUSED, samples.JOB, at=self.deps.now(), about=f"{first + number}", why="x", workflow="w", run="r")
            for number in range(count)
        )


@pytest.fixture
def ledger(served: Served, tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(served, tmp_path)
    yield made
    made.store.close()


def test_a_checkpoint_is_due_at_the_first_entry_then_every_minute_but_never_for_itself_alone(ledger: Ledger) -> None:
    assert sign_if_due(ledger.deps) is None, "there is nothing to commit to"
    ledger.grow(3)
    first = sign_if_due(ledger.deps)
    assert first is not None
    assert first.data["entries"] == 3
    ledger.ahead = 2 * MAX_AGE
    assert sign_if_due(ledger.deps) is None, "the only new entry is the checkpoint's own"
    ledger.ahead = timedelta()
    ledger.grow()
    assert sign_if_due(ledger.deps) is None, "the last one is younger than a minute"
    ledger.ahead = MAX_AGE + timedelta(seconds=1)
    second = sign_if_due(ledger.deps)
    assert second is not None
    assert second.data["entries"] == 5


def test_a_checkpoint_is_due_at_once_after_many_entries(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "MAX_ENTRIES", 3)
    ledger.grow()
    assert sign_if_due(ledger.deps) is not None
    ledger.grow(2)
    assert sign_if_due(ledger.deps) is None
    ledger.grow()
    assert sign_if_due(ledger.deps) is not None


def test_each_checkpoint_is_signed_in_vault_written_elsewhere_and_covers_exactly_its_entries(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MAX_ENTRIES", 1)
    for count in (1, 6, 2):
        ledger.grow(count)
        assert sign_if_due(ledger.deps) is not None
    found = list(read_checkpoints(ledger.written.read_text()))
    assert [one.size for one in found] == [1, 8, 11]
    keys = ledger_keys(ledger.deps)
    leaves = list(ledger.store.ledger.leaves(0, 11))
    for one in found:
        assert one.origin == keys.origin == f"justenough/{ledger.deps.settings.installation}/ledger"
        assert one.root == merkle.root_of(leaves[: one.size])
        assert one.is_signed_by({key.version: key.raw for key in keys.checkpoint_keys})
    assert verify_ledger(ledger.deps).sound


def record_checkpoint(ledger: Ledger, size: int) -> None:
    """Record a checkpoint of the first entries as another console does that began before."""
    tree, origin = (
        merkle.Frontier().with_leaves(ledger.store.ledger.leaves(0, size)),
        f"justenough/{ledger.deps.settings.installation}/ledger",
    )
    text = checkpoint_text(origin, size, tree.root)
    key, signature = ledger.deps.vault.sign_for_ledger(text)
    note = signed_note(origin, text, key=key, signature=signature)
    data = {"entries": size, "root": tree.root.hex(), "frontier": [node.hex() for node in tree.roots], "checkpoint": note}
    ledger.store.ledger.append([build_event(EventType.LEDGER_CHECKPOINTED, "-", at=ledger.deps.now(), about=str(size), **data)])


def test_checkpoints_recorded_out_of_order_by_two_consoles_are_sound(ledger: Ledger) -> None:
    ledger.grow(5)
    for size in (5, 3):
        record_checkpoint(ledger, size)
    assert verify_ledger(ledger.deps).problems == ()


def test_a_clock_that_was_ahead_delays_no_checkpoint(ledger: Ledger) -> None:
    ledger.grow()
    ledger.ahead = timedelta(hours=1)
    assert sign_if_due(ledger.deps) is not None
    ledger.ahead = timedelta()
    ledger.grow()
    assert sign_if_due(ledger.deps) is not None
    ledger.grow()
    assert sign_if_due(ledger.deps) is None, "the last one by position is younger than a minute"


def test_a_destroyed_hash_is_reported_as_a_problem_and_raises_no_error(ledger: Ledger) -> None:
    ledger.store.ledger.append([samples.submission(), samples.job_start()])
    assert sign_if_due(ledger.deps) is not None
    tamper(ledger.url, "UPDATE ledger SET hash = 'x' WHERE job = :job AND seq = 1")
    assert {problem.fault for problem in verify_ledger(ledger.deps).problems} >= {"edited", "rewritten"}


@pytest.mark.parametrize("forged", ["signature", "installation"])
def test_a_checkpoint_of_the_right_entries_that_we_did_not_sign_is_reported(ledger: Ledger, forged: str) -> None:
    ledger.grow(3)
    origin, root = "justenough/dev/ledger", merkle.root_of(list(ledger.store.ledger.leaves(0, 3)))
    text = checkpoint_text(origin if forged == "signature" else "justenough/prod/ledger", 3, root)
    key, signature = ledger.deps.vault.sign_for_ledger(text)
    note = signed_note(origin, text, key=key, signature=bytes(64) if forged == "signature" else signature)
    data = {"entries": 3, "root": root.hex(), "frontier": [], "checkpoint": note}
    ledger.store.ledger.append([build_event(EventType.LEDGER_CHECKPOINTED, "-", at=utc_now(), about="3", **data)])
    (problem,) = verify_ledger(ledger.deps).problems
    assert (problem.fault, problem.message.endswith("has no valid signature")) == ("forged", True)


def test_without_the_public_keys_the_ledger_is_verified_apart_from_the_signatures(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Deps) -> None:
        raise RetryLater("Vault does not answer")

    ledger.grow()
    assert sign_if_due(ledger.deps) is not None
    monkeypatch.setattr(checkpoints, "_checkpoint_keys", fail)
    report = verify_ledger(ledger.deps)
    assert (report.problems, report.unseen[-1]) == ((), "The signatures of checkpoints could not be verified: Vault does not answer.")


def test_no_checkpoint_is_signed_over_entries_that_are_missing(ledger: Ledger) -> None:
    ledger.store.ledger.append([samples.submission(), samples.job_start(), samples.job_end()])
    tamper(ledger.url, "DELETE FROM ledger WHERE job = :job AND seq = 2")
    with pytest.raises(LedgerBroken, match="entries are missing from the ledger: it has 2 up to position 3"):
        sign_if_due(ledger.deps)


@pytest.mark.parametrize("forged", ["another", "nothing"])
def test_a_checkpoint_that_somebody_else_recorded_is_not_continued(ledger: Ledger, forged: str) -> None:
    ledger.grow(4)
    lies = list(merkle.Frontier().with_leaves([b"lie"] * 3).roots)
    text = checkpoint_text("justenough/dev/ledger", 3, merkle.Frontier(3, tuple(lies)).root)
    note = signed_note("justenough/dev/ledger", text, key=b"k" * 32, signature=b"s" * 64) if forged == "another" else "nothing"
    data = {"entries": 3, "root": "ab", "frontier": [node.hex() for node in lies], "checkpoint": note}
    ledger.store.ledger.append([build_event(EventType.LEDGER_CHECKPOINTED, "-", at=utc_now() - 2 * MAX_AGE, about="3", **data)])
    ledger.grow()
    made = sign_if_due(ledger.deps)
    assert made is not None
    assert made.data["root"] == merkle.root_of(list(ledger.store.ledger.leaves(0, 6))).hex()
    assert {problem.fault for problem in verify_ledger(ledger.deps).problems} == {"rewritten" if forged == "another" else "forged"}


def test_a_file_that_cannot_be_written_loses_no_checkpoint(ledger: Ledger) -> None:
    ledger.written.mkdir()
    ledger.grow()
    assert sign_if_due(ledger.deps) is not None
    assert ledger.store.ledger.newest_checkpoint() is not None


def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint_leaves_the_file_readable(tmp_path: Path) -> None:
    file, note = (
        tmp_path / "checkpoints",
        signed_note("justenough/dev/ledger", checkpoint_text("justenough/dev/ledger", 1, b"r" * 32), key=b"k", signature=b"s" * 64),
    )
    append_to_file(file, note)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(note.encode()) + 40, before[1]))
    try:
        append_to_file(file, note)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    append_to_file(file, note)
    assert [checkpoint.size for checkpoint in read_checkpoints(file.read_text())] == [1, 1]


def test_people_are_listed_with_the_keys_that_they_sign_with(ledger: Ledger, served: Served) -> None:
    people = {person.name: person for person in ledger_keys(ledger.deps).people}
    lead = served.people["lead"]
    assert people["lead"].id == lead.id
    assert {key.version: key.raw for key in people["lead"].keys} == ledger.deps.vault.public_keys(lead.id)
    assert all(key.valid_from < utc_now() for key in people["lead"].keys)


async def test_entries_that_were_cut_and_numbered_again_are_found_by_a_recorded_checkpoint(ledger: Ledger) -> None:
    ledger.store.ledger.append([samples.submission(), samples.job_start(), samples.job_end()])
    ledger.grow(2)
    assert sign_if_due(ledger.deps) is not None
    assert verify_ledger(ledger.deps).sound
    tamper(
        ledger.url,
        "DELETE FROM ledger WHERE job = :job AND seq = 5",
        "UPDATE chain_heads SET seq = 4, hash = (SELECT hash FROM ledger WHERE job = :job AND seq = 4) WHERE job = :job",
        "UPDATE ledger SET position = position - 1 WHERE position > 5",
    )
    assert ledger.store.ledger.verify().sound, "every chain is whole"
    (problem,) = verify_ledger(ledger.deps).problems
    assert (problem.fault, "commits to 5 entries that are not the first" in problem.message) == ("rewritten", True)
    now = ledger.deps.now()
    report = await BackgroundReads(ledger.deps, cast("Any", None)).report(ReportPeriod(now - MAX_AGE, now + MAX_AGE), now=now)
    assert line(report, "ledger.verified").figures == {"verified": "not sound", "problems": 1, "chains": 2}


@pytest.mark.parametrize("data", ["{}", "[]", "no JSON", '{"checkpoint":7,"entries":"x","frontier":0}', '{"entries":1000000}'])
def test_an_edited_checkpoint_is_reported_and_stops_no_further_ones(ledger: Ledger, data: str) -> None:
    ledger.grow(2)
    assert sign_if_due(ledger.deps) is not None
    ledger.grow()
    tamper(ledger.url, f"UPDATE ledger SET data = '{data.replace(':', chr(92) + ':')}' WHERE type = 'ledger.checkpointed'")
    assert {problem.fault for problem in verify_ledger(ledger.deps).problems} == {"edited", "forged"}
    ledger.ahead = MAX_AGE + timedelta(seconds=1)
    assert sign_if_due(ledger.deps) is not None


@pytest.mark.parametrize("size, fault", [(-1, "forged"), (10**30, "rewritten")])
def test_a_recorded_checkpoint_of_an_impossible_size_is_reported(ledger: Ledger, size: int, fault: str) -> None:
    ledger.grow(2)
    note = signed_note("justenough/dev/ledger", f"justenough/dev/ledger\n{size}\nAAAA\n".encode(), key=b"k" * 32, signature=b"s" * 64)
    data = {"entries": 2, "root": "ab", "frontier": [], "checkpoint": note}
    ledger.store.ledger.append([build_event(EventType.LEDGER_CHECKPOINTED, "-", at=utc_now(), about="2", **data)])
    assert {problem.fault for problem in verify_ledger(ledger.deps).problems} == {fault}
    ledger.grow()
    made = sign_if_due(ledger.deps)
    assert made is not None
    assert made.data["root"] == merkle.root_of(list(ledger.store.ledger.leaves(0, 4))).hex()


def test_proofs_of_an_entry_and_of_an_earlier_checkpoint_are_valid(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "MAX_ENTRIES", 1)
    ledger.grow(5)
    first = sign_if_due(ledger.deps)
    ledger.grow(4)
    assert first is not None
    assert sign_if_due(ledger.deps) is not None
    proof = prove_inclusion(ledger.deps, first.id)
    (newest,) = read_checkpoints(proof.checkpoint)
    path = [bytes.fromhex(node) for node in proof.path]
    assert root_by_inclusion(bytes.fromhex(proof.leaf), proof.index, newest.size, path) == newest.root
    older = prove_consistency(ledger.deps, 5)
    path = [bytes.fromhex(node) for node in older.path]
    assert is_consistent(5, bytes.fromhex(first.data["root"]), newest.size, newest.root, path)
    for ask in (lambda: prove_inclusion(ledger.deps, "j-dev-none/x"), lambda: prove_consistency(ledger.deps, 99)):
        with pytest.raises(NotFound, match="no checkpoint commits to"):
            ask()


def test_proofs_of_a_long_ledger_do_not_keep_its_hashes_in_memory(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.grow()
    (entry,) = ledger.store.ledger.entries().items
    size = 20_000
    monkeypatch.setattr(checkpoints, "newest_checkpoint", lambda _: SimpleNamespace(size=size, note=""))
    monkeypatch.setattr(LedgerRepository, "leaves", lambda _, after, until: (number.to_bytes(32) for number in range(after, until)))
    for prove in (lambda: prove_inclusion(ledger.deps, entry.id), lambda: prove_consistency(ledger.deps, size - 1)):
        tracemalloc.start()
        try:
            prove()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 32 * size / 2
