"""A command that cannot do what it was asked to."""

from __future__ import annotations


class Failed(Exception):
    """The command fails with exit status 1; the text is the one line that says why."""
