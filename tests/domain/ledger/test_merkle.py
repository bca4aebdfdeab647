"""Merkle trees follow RFC 6962: its definition, known values, and proofs that are valid for nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.ledger import merkle
from justenough.domain.ledger.merkle import EMPTY_ROOT, Frontier, leaf_hash, node_hash, root_of
from tests.support.merkle_proofs import is_consistent, root_by_inclusion

LEAVES = st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=40)
CT_LEAVES = [
    bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
CT_ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}
"""Roots of the tree that Certificate Transparency's own tests build."""


def roots_of(leaves: list[bytes]) -> merkle.RootBetween:
    """Return the roots of parts of these leaves."""
    return lambda begin, end: root_of(leaves[begin:end])


def defined_root(leaves: list[bytes]) -> bytes:
    """RFC 6962's definition, word by word."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(defined_root(leaves[:split]), defined_root(leaves[split:]))


@pytest.mark.parametrize("size", CT_ROOTS)
def test_the_roots_of_known_leaves_equal_the_published_values(size: int) -> None:
    assert root_of(CT_LEAVES[:size]).hex() == CT_ROOTS[size]


def test_the_root_of_an_empty_tree_is_the_hash_of_nothing() -> None:
    assert root_of([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(LEAVES, st.data())
def test_a_tree_that_grew_in_steps_has_the_root_of_all_its_leaves(leaves: list[bytes], data: st.DataObject) -> None:
    step = data.draw(st.integers(0, len(leaves)))
    grown = Frontier().with_leaves(leaves[:step]).with_leaves(leaves[step:])
    assert (grown.size, grown.root, grown.is_well_formed) == (len(leaves), defined_root(leaves), True)


@given(LEAVES, st.data())
def test_an_audit_path_proves_its_leaf_in_its_place_and_nothing_else(leaves: list[bytes], data: st.DataObject) -> None:
    index, root = data.draw(st.integers(0, len(leaves) - 1)), root_of(leaves)
    path = merkle.inclusion_path(roots_of(leaves), len(leaves), index)
    assert root_by_inclusion(leaves[index], index, len(leaves), path) == root
    assert root_by_inclusion(leaves[index] + b"x", index, len(leaves), path) != root
    assert root_by_inclusion(leaves[index], index, len(leaves), (*path, root)) != root
    if path:
        assert root_by_inclusion(leaves[index], index, len(leaves), path[:-1]) != root
    assert root_by_inclusion(leaves[index], len(leaves), len(leaves), path) is None


@given(LEAVES, st.data())
def test_a_consistency_proof_holds_for_its_two_trees_and_no_others(leaves: list[bytes], data: st.DataObject) -> None:
    old, size = data.draw(st.integers(1, len(leaves))), len(leaves)
    before, after, path = root_of(leaves[:old]), root_of(leaves), merkle.consistency_path(roots_of(leaves), len(leaves), old)
    assert is_consistent(old, before, size, after, path)
    other = root_of([b"other", *leaves[1:old]]) if leaves[0] != b"other" else EMPTY_ROOT
    assert not is_consistent(old, other, size, after, path)
    assert not is_consistent(old, before, size, other, path)
    assert not is_consistent(old, before, size, after, (*path, after))
    for number in range(len(path)):
        assert not is_consistent(old, before, size, after, (*path[:number], EMPTY_ROOT, *path[number + 1 :]))
    assert not is_consistent(size + 1, before, size, after, path)
    assert not is_consistent(0, EMPTY_ROOT, size, after, path)


DISTINCT = [bytes([number]) for number in range(18)]


@pytest.mark.parametrize("size", range(1, len(DISTINCT)))
def test_each_audit_path_proves_its_leaf_in_its_place_alone(size: int) -> None:
    leaves = DISTINCT[:size]
    for index in range(size):
        path = merkle.inclusion_path(roots_of(leaves), len(leaves), index)
        places = [place for place in range(-2, size + 3) if root_by_inclusion(leaves[index], place, size, path) == root_of(leaves)]
        assert places == [index]


@pytest.mark.parametrize("size", range(1, len(DISTINCT)))
def test_each_consistency_proof_holds_for_its_old_tree_alone(size: int) -> None:
    leaves = DISTINCT[:size]
    roots = {old: root_of(leaves[:old]) for old in range(size + 2)}
    for old in range(1, size + 1):
        path = merkle.consistency_path(roots_of(leaves), len(leaves), old)
        held = [other for other, root in roots.items() if is_consistent(other, root, size, root_of(leaves), path)]
        assert held == [old]
        assert not is_consistent(old, roots[old], size, root_of(leaves), (*path, EMPTY_ROOT))
        assert not path or not is_consistent(old, roots[old], size, root_of(leaves), path[:-1])
        assert not is_consistent(-old, roots[old], size, root_of(leaves), path)


@pytest.mark.parametrize(
    "size, subtrees, is_well_formed", [(0, 0, True), (3, 2, True), (4, 1, True), (3, 1, False), (3, 3, False), (0, 1, False)]
)
def test_a_frontier_has_a_subtree_for_each_1_of_its_size(size: int, subtrees: int, *, is_well_formed: bool) -> None:
    assert Frontier(size, (leaf_hash(b"x"),) * subtrees).is_well_formed is is_well_formed


def test_an_invalid_hash_becomes_a_leaf_as_text() -> None:
    assert (merkle.leaf_of("00ff"), merkle.leaf_of("edited")) == (b"\x00\xff", b"edited")
