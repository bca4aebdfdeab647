"""Shared by the house tests: the product's source, parsed once per test file."""

from __future__ import annotations

import pytest

from tests.house.source_tree import SourceTree


@pytest.fixture(scope="module")
def source() -> SourceTree:
    """The product's source on disk. It is not kept for the session: 400,000 nodes would slow down every later test."""
    return SourceTree.read()
