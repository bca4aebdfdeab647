"""One job, shared by all tests that leave nothing behind in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sdk.remote_python import Remote, launch_remote
from tests.support.people import Human


@pytest.fixture(scope="module")
def job(ops: Human) -> Iterator[Remote]:
    with launch_remote(ops) as running:
        running.run("import json, os, signal, subprocess, sys, warnings, justenough_job as je")
        yield running
