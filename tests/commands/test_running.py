"""The command that `envelope exec` runs."""

from __future__ import annotations

import errno
import os

import pytest
from twisted.internet import reactor

from envelope.commands.running import Command


@pytest.mark.process
def test_a_command_that_cannot_be_watched_does_not_go_on(monkeypatch) -> None:
    """As on Linux before 5.3, or without a free descriptor."""
    def refuse(_: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(OSError, match="cannot be watched: Function not implemented"):
        Command(reactor, ["sleep", "60"], os.environ, set())
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
