"""What a worker loads when it starts."""

from __future__ import annotations

import subprocess
import sys


def test_a_worker_starts_without_loading_the_mcp_sdk() -> None:
    """The SDK takes most of a second and 17 MB, and a worker that starts may have access to revoke."""
    code = "import sys; import worker.main; print(sorted({'mcp', 'mcp_types', 'jsonschema'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
