"""Signs checkpoints of the ledger while the console serves, and verifies them. The worker, which runs jobs, cannot sign any.

A checkpoint is recorded in the ledger (`ledger.checkpointed`), so every webhook can carry it elsewhere, and appended to JUSTENOUGH_CHECKPOINT_FILE.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import structlog
from anyio import to_thread

from console.concurrency.loops import repeat
from justenough.adapters.store.paging import MAX_PAGE_SIZE, iterate_pages
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import GiveUp, InvalidInput, NotFound, RetryLater
from justenough.domain.ledger import merkle
from justenough.domain.ledger.checkpoint import Checkpoint, checkpoint_text, origin_of, read_checkpoints, signed_note
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN, EventType, build_event
from justenough.domain.ledger.hash_chain import ChainProblem, Fault, LedgerReport
from justenough.domain.ledger.merkle import Frontier
from justenough.domain.ledger.public_keys import LedgerKeys, PersonKeys
from justenough.domain.readmodel.views import EntryView
from justenough.services.dependencies import Deps

CHECK_INTERVAL_S = 5.0
MAX_AGE = timedelta(seconds=60)
"""An entry is included in a checkpoint after about this time."""
MAX_ENTRIES = 1_000
"""A checkpoint is signed earlier if there are this many new entries."""

log = structlog.get_logger()


class LedgerBroken(RetryLater):
    """Positions of the ledger are empty, so no checkpoint is signed."""


class InclusionProof(Message):
    """Proof that a checkpoint commits to an entry."""

    entry: str
    index: int
    """The index of its leaf, counted from 0: its position minus 1."""
    leaf: str
    """The entry's hash, as hex: its bytes are the leaf."""
    path: tuple[str, ...]
    """Hashes as hex, from the leaf to the root."""
    checkpoint: str
    """The checkpoint's text; the tree's size is in its second line, the root in its third."""


class ConsistencyProof(Message):
    """Proof that a checkpoint continues an earlier one."""

    size: int
    """Entries of the earlier one."""
    path: tuple[str, ...]
    """Hashes as hex."""
    checkpoint: str


class _RecordedCheckpoint(NamedTuple):
    """A checkpoint and its entry, without the long texts: a ledger has one for each minute in which anything happened."""

    size: int
    root: bytes
    is_signed: bool
    """True if no key is known, too."""
    job: str
    seq: int
    id: str


async def run_checkpoints(deps: Deps) -> None:
    """Sign a checkpoint whenever one is due, until cancelled."""
    step = partial(to_thread.run_sync, partial(sign_if_due, deps))
    await repeat(step, every_s=CHECK_INTERVAL_S, failure="no checkpoint can be signed")


def sign_if_due(deps: Deps) -> EntryView | None:
    """Sign and record a checkpoint of all entries if one is due; return its entry. Blocking.

    A checkpoint is due after MAX_ENTRIES new entries, or after MAX_AGE if there is any entry besides the last checkpoint's own. Several
    consoles may sign the same one.
    """
    last, size = deps.store.ledger.newest_checkpoint(), deps.store.ledger.head().position
    checkpoint = _recorded_checkpoint(last) if last else None
    if last is None or checkpoint is None or checkpoint.size >= last.position:
        # There is none, or somebody edited it: each is recorded after all entries that it commits to.
        last, new = None, size
    else:
        new = size - checkpoint.size - 1
    # Another console's clock may be ahead.
    if new < 1 or (last is not None and new < MAX_ENTRIES and timedelta() <= deps.now() - last.at < MAX_AGE):
        return None
    known = _frontier_of(deps, last, checkpoint) if last and checkpoint else Frontier()
    tree = known.with_leaves(deps.store.ledger.leaves(known.size, size))
    if tree.size != size:
        raise LedgerBroken(f"entries are missing from the ledger: it has {tree.size} up to position {size}")
    origin = origin_of(deps.settings.installation)
    text = checkpoint_text(origin, tree.size, tree.root)
    key, signature = deps.vault.sign_for_ledger(text)
    note = signed_note(origin, text, key=key, signature=signature)
    data = {"entries": tree.size, "root": tree.root.hex(), "frontier": [node.hex() for node in tree.roots], "checkpoint": note}
    event = build_event(EventType.LEDGER_CHECKPOINTED, UNATTRIBUTED_CHAIN, at=deps.now(), about=str(tree.size), **data)
    (entry,) = deps.store.ledger.append([event]) or (None,)
    if entry is not None and deps.settings.checkpoint_file is not None:
        append_to_file(deps.settings.checkpoint_file, note)
    return entry


def append_to_file(file: Path, note: str) -> None:
    """Append a checkpoint and return once it is on the disk. Only logs a failure: the ledger has the checkpoint, and webhooks carry it too."""
    try:
        with file.open("ab", buffering=0) as opened:
            end, text = os.fstat(opened.fileno()).st_size, note.encode()
            if opened.write(text) < len(text):
                # A part of a note would make the whole file unreadable.
                opened.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(opened.fileno())
    except OSError as error:
        log.warning("a checkpoint could not be written", file=str(file), error=error.strerror or type(error).__name__)


def ledger_keys(deps: Deps) -> LedgerKeys:
    """Return the public keys that verify checkpoints and people's signatures. Blocking. Raises RetryLater."""
    people = []
    for person, keys in deps.vault.signing_key_versions().items():
        known = deps.vault.person(person, deps.settings.people_mounts)
        people.append(PersonKeys(id=person, name=known.name if known else "", keys=keys))
    return LedgerKeys(origin=origin_of(deps.settings.installation), checkpoint_keys=deps.vault.ledger_key_versions(), people=tuple(people))


def prove_inclusion(deps: Deps, entry_id: str) -> InclusionProof:
    """Prove that the newest checkpoint commits to an entry. Blocking; reads every entry's hash, and keeps none. Raises NotFound."""
    checkpoint, entry = newest_checkpoint(deps), deps.store.ledger.entry(entry_id)
    if entry is None or checkpoint is None or entry.position > checkpoint.size:
        raise NotFound(f"no checkpoint commits to an entry {entry_id} yet")
    path = merkle.inclusion_path(_root_between(deps), checkpoint.size, entry.position - 1)
    return InclusionProof(
        entry=entry.id, index=entry.position - 1, leaf=entry.hash, path=tuple(node.hex() for node in path), checkpoint=checkpoint.note
    )


def prove_consistency(deps: Deps, size: int) -> ConsistencyProof:
    """Prove that the newest checkpoint continues the tree of the first `size` entries. Blocking, as `prove_inclusion`. Raises NotFound."""
    checkpoint = newest_checkpoint(deps)
    if checkpoint is None or size > checkpoint.size:
        raise NotFound(f"no checkpoint commits to {size:,} entries yet")
    path = merkle.consistency_path(_root_between(deps), checkpoint.size, size)
    return ConsistencyProof(size=size, path=tuple(node.hex() for node in path), checkpoint=checkpoint.note)


def _root_between(deps: Deps) -> merkle.RootBetween:
    return lambda begin, end: merkle.root_of(deps.store.ledger.leaves(begin, end))


def verify_ledger(deps: Deps) -> LedgerReport:
    """Verify every chain, and that the entries match every recorded checkpoint. Blocking."""
    report = deps.store.ledger.verify()
    keys: Mapping[int, bytes] | None = None
    unseen: tuple[str, ...] = ()
    try:
        keys = _checkpoint_keys(deps)
    except (RetryLater, GiveUp) as error:
        unseen = (f"The signatures of checkpoints could not be verified: {error}.",)
    problems = (*report.problems, *_checkpoint_problems(deps, keys))
    return report.model_copy(update={"problems": problems, "unseen": (*report.unseen, *unseen)})


def _checkpoint_problems(deps: Deps, keys: Mapping[int, bytes] | None) -> Iterator[ChainProblem]:
    ledger, recorded = deps.store.ledger, list[_RecordedCheckpoint]()
    types = [EventType.LEDGER_CHECKPOINTED]
    for entry in iterate_pages(lambda after: ledger.entries(types=types, after=int(after or 0), limit=MAX_PAGE_SIZE)):
        if checkpoint := _recorded_checkpoint(entry):
            is_signed = keys is None or _is_ours(deps, checkpoint, keys)
            recorded.append(_RecordedCheckpoint(checkpoint.size, checkpoint.root, is_signed, entry.job, entry.seq, entry.id))
        else:
            yield _problem_of(entry, Fault.FORGED, "has no readable checkpoint")
    # Two consoles may record their checkpoints in an order that differs from that of the sizes.
    recorded.sort(key=lambda known: known.size)
    tree, newest = Frontier(), ledger.head().position
    leaves = ledger.leaves(0, newest)
    for known in recorded:
        tree = tree.with_leaves(islice(leaves, min(known.size, newest) - tree.size))
        if (tree.size, tree.root) != (known.size, known.root):
            yield _problem_of(known, Fault.REWRITTEN, f"commits to {known.size:,} entries that are not the first of this ledger")
            # Then so do all later ones.
            return
        if not known.is_signed:
            yield _problem_of(known, Fault.FORGED, "has no valid signature")


def _checkpoint_keys(deps: Deps) -> Mapping[int, bytes]:
    return {key.version: key.raw for key in deps.vault.ledger_key_versions()}


def _is_ours(deps: Deps, checkpoint: Checkpoint, keys: Mapping[int, bytes]) -> bool:
    return checkpoint.origin == origin_of(deps.settings.installation) and checkpoint.is_signed_by(keys)


def _problem_of(entry: EntryView | _RecordedCheckpoint, fault: Fault, what: str) -> ChainProblem:
    return ChainProblem(job=entry.job, seq=entry.seq, fault=fault, message=f"the checkpoint {entry.id} {what}")


def newest_checkpoint(deps: Deps) -> Checkpoint | None:
    entry = deps.store.ledger.newest_checkpoint()
    return _recorded_checkpoint(entry) if entry else None


def _recorded_checkpoint(entry: EntryView) -> Checkpoint | None:
    """Return the checkpoint that an entry records; None if somebody replaced it by something else."""
    try:
        (checkpoint,) = read_checkpoints(str(entry.data.get("checkpoint")))
    except (InvalidInput, ValueError):
        return None
    return checkpoint


def _frontier_of(deps: Deps, entry: EntryView, checkpoint: Checkpoint) -> Frontier:
    """Return the tree that an entry's checkpoint commits to; if nothing proves that we signed it, the empty tree: then every entry is read."""
    try:
        tree = Frontier(checkpoint.size, tuple(bytes.fromhex(node) for node in entry.data["frontier"]))
    except (LookupError, ValueError, TypeError):
        return Frontier()
    if not _is_ours(deps, checkpoint, _checkpoint_keys(deps)) or not tree.is_well_formed or tree.root != checkpoint.root:
        log.warning("the last checkpoint is not ours; the next one reads the whole ledger", entry=entry.id)
        return Frontier()
    return tree
