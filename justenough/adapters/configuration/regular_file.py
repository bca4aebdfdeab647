"""Reads a file of the configuration folder: a regular one, and no more of it than its reader accepts."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MAX_FILE_BYTES = 4 * 1024 * 1024
"""The size of the largest accepted file."""


def read_regular_file(path: Path, *, max_bytes: int) -> bytes:
    """Return a file's content; of a larger file, one byte more than `max_bytes`.

    Raises OSError, for example for a pipe or a device: opening or reading one may block forever.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return file.read(max_bytes + 1)
