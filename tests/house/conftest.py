"""What the house tests share: the product's source, parsed once for a file of tests."""

from __future__ import annotations

import pytest

from tests.house.source_tree import SourceTree


@pytest.fixture(scope="module")
def source() -> SourceTree:
    """The product's source as it is on disk. Not for the session: 400,000 nodes would slow down every test after these."""
    return SourceTree.read()
