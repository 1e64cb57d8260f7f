"""Reads the files of keys and certificates, never waiting: the service reads them while it runs."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

# Bytes; a chain or a set of keys has a few thousand.
MOST_BYTES: Final = 1 << 20


def read_file(path: Path) -> bytes:
    """The content, or its first `MOST_BYTES` + 1 bytes; raise `OSError`, also for a pipe or device.

    A pipe is not waited for: until something writes to it, the whole service would stand still.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return file.read(MOST_BYTES + 1)


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
