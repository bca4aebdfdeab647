"""A small ledger with real signatures, checkpoints and keys, and attackers who rewrite it: they have the right hashes, and no key."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from justenough.domain.core.canonical_json import digest_of, to_canonical_json
from justenough.domain.ledger.checkpoint import Checkpoint, checkpoint_text, origin_of, read_checkpoints, signed_note
from justenough.domain.ledger.events import EventType, build_event
from justenough.domain.ledger.export import to_export_line
from justenough.domain.ledger.hash_chain import GENESIS, LedgerEntry, chain_entry, entry_hash, hashed_text
from justenough.domain.ledger.merkle import root_of
from justenough.domain.ledger.public_keys import KeyVersion, LedgerKeys, PersonKeys
from justenough.domain.readmodel.views import EntryView

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
ORIGIN = origin_of("dev")
LEDGER, OPS, LEAD = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2, 3))
SPEC = {"name": "refunds", "run": {"command": ["true"]}}


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def versions(key: Ed25519PrivateKey, *, since: datetime = NOW) -> tuple[KeyVersion, ...]:
    return (KeyVersion(version=1, public_key=base64.b64encode(public(key)).decode(), valid_from=since),)


KEYS = LedgerKeys(
    origin=ORIGIN,
    checkpoint_keys=versions(LEDGER),
    people=(PersonKeys(id="ops", name="ops", keys=versions(OPS)), PersonKeys(id="lead", name="lead", keys=versions(LEAD))),
)


def signed(key: Ed25519PrivateKey, **statement: Any) -> dict[str, Any]:
    """A statement as people send it."""
    signature = base64.b64encode(key.sign(to_canonical_json(statement))).decode()
    return {"statement": statement, "signature": f"vault:v1:{signature}"}


def submitted(job: str, number: int) -> Any:
    order = signed(OPS, type="order", job=job, spec_digest=digest_of(SPEC), bundle=None, params={}, reason="r", person="ops")
    names: dict[str, Any] = {"name": "refunds", "task": "t", "environment": "prod", "agent": None, "data_scope": {}, "labels": {}}
    who: dict[str, Any] = {"requester": "ops", "requester_name": "ops", "parent": None, "reason": "r", "beyond": "ask"}
    at = NOW + timedelta(seconds=number)
    return build_event(EventType.JOB_SUBMITTED, job, at=at, spec=SPEC, params={}, bundle=None, order=order, **names, **who)


def decided(job: str, number: int) -> Any:
    said = {"request": f"r{job[1:]}-1", "person": "lead", "decision": "approve", "ttl": 300, "action": "read", "reason": "fine"}
    more: dict[str, Any] = {"name": "lead", "tier": 1, "on_behalf_of": None, "on_behalf_of_name": None}
    grant: dict[str, Any] = {"verdict": "approved", "granted_ttl": 300, "granted_action": "read"}
    at = NOW + timedelta(seconds=number)
    sent = signed(LEAD, type="decision", job=job, **said)
    return build_event(EventType.APPROVAL_DECIDED, job, at=at, about=f"{number}", signed=sent, **said, **more, **grant)


def small_ledger() -> list[str]:
    """Export lines of three jobs with their orders and approvals, chains mixed."""
    jobs = ("j-dev-1", "j-dev-2", "j-dev-3")
    events = [make(job, number) for number, (make, job) in enumerate([(submitted, job) for job in jobs] + [(decided, job) for job in jobs])]
    for number, job in enumerate((*jobs, *jobs[:2]), start=6):
        refusal = {"why": f"try {number}", "workflow": "w", "run": "r"}
        events.append(build_event(EventType.JOB_REFUSED, job, at=NOW + timedelta(seconds=number), about=f"{number}", **refusal))
    ends: dict[str, LedgerEntry] = {}
    lines = []
    for position, event in enumerate(events, start=1):
        entry = ends[event.job] = chain_entry(event, ends.get(event.job))
        view = EntryView(position=position, **{**entry._asdict(), "at": entry.at, "data": json.loads(entry.data)})
        lines.append(to_export_line(view.model_dump(mode="json")))
    return lines


def checkpoint_of(lines: Sequence[str], *, key: Ed25519PrivateKey = LEDGER, size: int | None = None) -> Checkpoint:
    """The checkpoint of the first `size` lines, signed with a key."""
    leaves = [bytes.fromhex(json.loads(line)["hash"]) for line in lines[:size]]
    text = checkpoint_text(ORIGIN, len(leaves), root_of(leaves))
    (made,) = read_checkpoints(signed_note(ORIGIN, text, key=public(key), signature=key.sign(text)))
    return made


def rehashed(entries: Iterable[dict[str, Any]]) -> list[str]:
    """Number and hash entries anew in this order, as somebody would who can write to every table."""
    ends: dict[str, tuple[int, str]] = {}
    lines = []
    for position, entry in enumerate(entries, start=1):
        seq, prev = ends.get(entry["job"], (0, GENESIS))
        data = _to_canonical_data(json.dumps(entry["data"]))
        at = datetime.fromisoformat(entry["at"]).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        hashed = (entry["job"], seq + 1, entry["id"], entry["type"], at, data, prev)
        made = entry_hash(*hashed)
        ends[entry["job"]] = (seq + 1, made)
        line = {**entry, "position": position, "seq": seq + 1, "prev": prev, "hash": made, "text": hashed_text(*hashed)}
        lines.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
    return lines


@lru_cache(maxsize=1000)
def _to_canonical_data(data: str) -> str:
    """Return the canonical form of an entry's data. Most entries of an edited ledger are those of the ledger itself."""
    return to_canonical_json(json.loads(data)).decode()
