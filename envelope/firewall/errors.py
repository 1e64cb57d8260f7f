"""Errors of the kernel's tools; the text of each is one line for the operator."""

from __future__ import annotations


class UnreadableRules(Exception):
    """The text is not what iptables-save prints, or the tool cannot show the whole table."""


class ToolFailed(Exception):
    """A child process did not do its work; the text is one line saying which and why.

    `output` is what it had printed by then.
    """

    def __init__(self, why: str, output: bytes = b"") -> None:
        super().__init__(why)
        self.output = output


class ToolTimeout(ToolFailed):
    """A child process did not answer in time and was killed."""
