"""Verify an export of a JustEnough ledger. Written from docs/reference/ledger.md alone; needs the packages cryptography and rfc8785.

python verify_ledger.py ledger.jsonl checkpoint.txt keys.json
"""

import base64
import hashlib
import json
import sys
from pathlib import Path

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

HOLDERS = {"job.submitted": "order"}
HOLDERS |= dict.fromkeys(["approval.decided", "approval.withdrawn", "withdrawal.requested", "review.answered", "delegation.made"], "signed")


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def check(holds: object, why: str) -> None:
    if not holds:
        sys.exit(why)


def verify(key: str, signature: bytes, message: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(base64.b64decode(key)).verify(signature, message)


export, checkpoint, keys = (Path(name).read_text(encoding="utf-8") for name in sys.argv[1:])
known = json.loads(keys)
people = {person["id"]: {key["version"]: key["public_key"] for key in person["keys"]} for person in known["people"]}
leaves, ends = [], {}
for position, line in enumerate(export.removesuffix("\n").split("\n"), start=1):
    entry = json.loads(line)
    _, prev, job, seq, _, kind, _, data = entry["text"].split("\n")
    end, digest = ends.get(job, (0, "0" * 64)), sha256(entry["text"].encode())
    check(digest.hex() == entry["hash"], f"entry {position} was edited")
    check((entry["position"], int(seq), prev) == (position, end[0] + 1, end[1]), f"entry {position} was moved or exchanged")
    ends[job] = int(seq), entry["hash"]
    leaves.append(digest)
    # A withdrawal that was made while Vault was unreachable has no signature.
    if kind in HOLDERS and ((signed := json.loads(data)[HOLDERS[kind]]) or "withdraw" not in kind):
        _, version, signature = signed["signature"].split(":")
        signer = people[signed["statement"]["person"]]
        verify(signer[int(version[1:])], base64.b64decode(signature), rfc8785.dumps(signed["statement"]))
text, _, signatures = checkpoint.partition("\n\n")
origin, size, root = text.split("\n")
nodes = [sha256(b"\0" + leaf) for leaf in leaves[: int(size)]]
while len(nodes) > 1:
    pairs = [sha256(b"\1" + left + right) for left, right in zip(nodes[::2], nodes[1::2], strict=False)]
    nodes = pairs + nodes[len(pairs) * 2 :]
check(len(leaves) >= int(size) and nodes[0] == base64.b64decode(root), "entries were removed or rewritten")
raw = base64.b64decode(signatures.split()[2])
by_id = {sha256(f"{origin}\n\1".encode() + base64.b64decode(one["public_key"]))[:4]: one["public_key"] for one in known["checkpoint_keys"]}
verify(by_id[raw[:4]], raw[4:], f"{text}\n".encode())
print(f"{len(leaves)} entries are sound and continue the checkpoint of {size}")
