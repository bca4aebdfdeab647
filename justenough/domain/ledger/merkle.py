"""Merkle trees as in RFC 6962, section 2.1: roots, inclusion proofs, consistency proofs. No I/O.

A leaf is the 32 bytes of an entry's hash; leaf number `position - 1` is the entry at `position`. Hashes are bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

EMPTY_ROOT = hashlib.sha256().digest()


class Frontier(NamedTuple):
    """The tree of the first `size` leaves, as the roots of its complete subtrees, from left (largest) to right.

    Appending needs no more than that.
    """

    size: int = 0
    roots: tuple[bytes, ...] = ()

    def with_leaves(self, leaves: Iterable[bytes]) -> Frontier:
        """Return the frontier after these further leaves."""
        size, roots = self.size, list(self.roots)
        for leaf in leaves:
            node = leaf_hash(leaf)
            # Each trailing 1 of the old size is a subtree that the new leaf completes.
            rest = size
            while rest & 1:
                node = node_hash(roots.pop(), node)
                rest >>= 1
            roots.append(node)
            size += 1
        return Frontier(size, tuple(roots))

    @property
    def root(self) -> bytes:
        if not self.roots:
            return EMPTY_ROOT
        node = self.roots[-1]
        for left in reversed(self.roots[:-1]):
            node = node_hash(left, node)
        return node

    @property
    def is_well_formed(self) -> bool:
        """Whether there is a subtree for each 1 bit of the size."""
        return len(self.roots) == self.size.bit_count()


def leaf_of(entry_hash: str) -> bytes:
    """Return the leaf of an entry: the bytes of its hash.

    If somebody replaced the hash by a text that is not a hash, return the bytes of that text.
    """
    try:
        return bytes.fromhex(entry_hash)
    except ValueError:
        return entry_hash.encode()


def leaf_hash(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\0" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    return Frontier().with_leaves(leaves).root


def inclusion_path(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the audit path of leaf `index` (from 0), from the leaf to the root."""
    if len(leaves) <= 1:
        return ()
    split = _split(len(leaves))
    if index < split:
        return (*inclusion_path(leaves[:split], index), root_of(leaves[split:]))
    return (*inclusion_path(leaves[split:], index - split), root_of(leaves[:split]))


def consistency_path(leaves: Sequence[bytes], old: int) -> tuple[bytes, ...]:
    """Return the proof that the tree of these leaves continues the tree of their first `old` (at least 1)."""
    return () if old == len(leaves) else _consistency_subpath(leaves, old, is_whole=True)


def _consistency_subpath(leaves: Sequence[bytes], old: int, *, is_whole: bool) -> tuple[bytes, ...]:
    if old == len(leaves):
        return () if is_whole else (root_of(leaves),)
    split = _split(len(leaves))
    if old <= split:
        return (*_consistency_subpath(leaves[:split], old, is_whole=is_whole), root_of(leaves[split:]))
    return (*_consistency_subpath(leaves[split:], old - split, is_whole=False), root_of(leaves[:split]))


def _split(size: int) -> int:
    """Return the largest power of two below `size` (at least 2)."""
    return 1 << (size - 1).bit_length() - 1
