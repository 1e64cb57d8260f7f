"""Standard streams that are closed, or whose reader is gone, as in `envelope rules | head -1`."""

from __future__ import annotations

import os
import shutil
import sys
from io import TextIOWrapper
from typing import Final

_STDERR: Final = 2


def open_closed_streams() -> None:
    """Open the standard streams that the parent process closed, to /dev/null.

    Otherwise a socket may get the descriptor of standard error, and a peer what is written there.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def replace_unknown_characters() -> None:
    """Write a ? for each character that the standard streams' encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def flush_or_discard() -> None:
    """Write what is buffered, or discard it if it cannot be written.

    The interpreter would otherwise try again when it exits, and print an error.
    """
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())


def terminal_width() -> int | None:
    """The columns of the terminal, or of COLUMNS; None when the output is no terminal."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return None
    return shutil.get_terminal_size().columns
