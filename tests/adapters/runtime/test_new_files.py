"""Files that are written together exist all or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from justenough.adapters.runtime.new_files import new_files


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
def test_what_was_written_is_removed_if_the_rest_fails_or_is_interrupted(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "old").mkdir()
    late = tmp_path / "new" / "deep" / "two"

    def write_and_fail() -> None:
        with new_files([(tmp_path / "old" / "one", "1"), (late, "2")]):
            assert late.read_text() == "2"
            raise error

    with pytest.raises(error):
        write_and_fail()
    assert [*tmp_path.rglob("*")] == [tmp_path / "old"]
