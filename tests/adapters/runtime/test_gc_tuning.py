"""Garbage collection is paused while a server loads its modules, and ignores these modules afterwards."""

from __future__ import annotations

import gc
import subprocess
import sys
from importlib import import_module

import pytest

from justenough.adapters.runtime import gc_tuning

STATE = "import gc; print(gc.isenabled(), gc.get_freeze_count() > 100_000)"


@pytest.mark.parametrize("server", ["console", "worker"])
def test_a_server_collects_garbage_except_among_its_modules(server: str) -> None:
    argv = (sys.executable, "-c", f"import {server}.__main__; {STATE}")
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split() == ["True", "True"]


def test_an_import_that_fails_leaves_garbage_collection_on() -> None:
    with pytest.raises(ImportError), gc_tuning.pause():
        import_module("no_such_module")
    assert gc.isenabled()
