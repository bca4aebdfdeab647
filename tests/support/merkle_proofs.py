"""Verifies Merkle proofs as RFC 9162 says, as those do who keep a checkpoint. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from justenough.domain.ledger.merkle import leaf_hash, node_hash


def root_by_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root that an audit path proves for leaf `index` of a tree of `size` leaves; None if the path does not fit (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return None
    node, last = leaf_hash(leaf), size - 1
    for sibling in path:
        if not last:
            return None
        if index & 1 or index == last:
            node = node_hash(sibling, node)
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        index, last = index >> 1, last >> 1
    return None if last else node


def is_consistent(old: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]) -> bool:
    """Whether a consistency proof shows that a tree of `size` leaves with this root continues one of `old` (at least 1) leaves (RFC 9162, 2.1.4.2)."""
    if old == size:
        return not path and old_root == root
    # The old tree is a subtree of the new one if its size is a power of two; then the proof leaves its root out.
    nodes = list(path) if old & (old - 1) else [old_root, *path]
    if not (0 < old < size and nodes):
        return False
    index, last = old - 1, size - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    before = after = nodes[0]
    for node in nodes[1:]:
        if not last:
            return False
        if index & 1 or index == last:
            before, after = node_hash(node, before), node_hash(node, after)
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            after = node_hash(after, node)
        index, last = index >> 1, last >> 1
    return (before, after, last) == (old_root, root, 0)
