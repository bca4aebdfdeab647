"""Merkle trees as in RFC 6962, section 2.1: roots, inclusion proofs, consistency proofs. No I/O.

A leaf is the 32 bytes of an entry's hash; leaf number `position - 1` is the entry at `position`. Hashes are bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

EMPTY_ROOT = hashlib.sha256().digest()
RootBetween = Callable[[int, int], bytes]
"""Returns the root of the tree of the leaves from one index (from 0) up to another, which is excluded."""


class Frontier(NamedTuple):
    """The tree of the first `size` leaves, as the roots of its complete subtrees, from left (largest) to right.

    Appending needs no more than that.
    """

    size: int = 0
    roots: tuple[bytes, ...] = ()

    def with_leaves(self, leaves: Iterable[bytes]) -> Frontier:
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


def root_of(leaves: Iterable[bytes]) -> bytes:
    return Frontier().with_leaves(leaves).root


def inclusion_path(root_between: RootBetween, size: int, index: int) -> tuple[bytes, ...]:
    """Return the audit path of leaf `index` (from 0) of a tree of `size` leaves, from the leaf to the root."""
    path, begin, end = list[bytes](), 0, size
    while end - begin > 1:
        split = _split(begin, end)
        if index < split:
            path.append(root_between(split, end))
            end = split
        else:
            path.append(root_between(begin, split))
            begin = split
    return tuple(reversed(path))


def consistency_path(root_between: RootBetween, size: int, old: int) -> tuple[bytes, ...]:
    """Return the proof that a tree of `size` leaves continues the tree of its first `old` leaves (at least 1)."""
    path, begin, end = list[bytes](), 0, size
    while old != end:
        split = _split(begin, end)
        if old <= split:
            path.append(root_between(split, end))
            end = split
        else:
            path.append(root_between(begin, split))
            begin = split
    # Whoever has the old tree knows its root, so the proof begins with a subtree only if the old tree is not one itself.
    return tuple(reversed([*path, root_between(begin, end)] if begin else path))


def _split(begin: int, end: int) -> int:
    """Return the end of the left subtree of these leaves (at least 2): it has the largest power of two below their number."""
    return begin + (1 << (end - begin - 1).bit_length() - 1)
