"""Child processes that end, fail, hang, flood or are not there."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import CancelledError

from envelope.firewall import process
from envelope.firewall.errors import ToolFailed, ToolTimeout
from envelope.firewall.process import one_line, run


def sh(script: str, timeout: float = 10.0, stdin: bytes = b""):
    return run(reactor, ("/bin/sh", "-c", script), timeout, stdin)


@pytest.mark.process
@ensureDeferred
async def test_what_it_prints_is_kept_apart() -> None:
    """And its environment is ours, not our parent's."""
    finished = await sh("cat; echo $HOME$LC_ALL >&2", stdin=b"hello")
    assert (finished.output, finished.errors) == (b"hello", b"C\n")


@pytest.mark.process
@pytest.mark.parametrize(("script", "said"), [
    ("echo first >&2; echo why >&2; exit 3", "sh: why"),
    ("exit 3", "sh: ended with exit status 3"), ("kill -9 $$", "sh: ended by signal 9"),
])
@ensureDeferred
async def test_a_failure_says_why_in_one_line(script, said) -> None:
    """The last thing it said, else how it ended."""
    with pytest.raises(ToolFailed) as caught:
        await sh(script)
    assert said in str(caught.value)


@pytest.mark.process
@ensureDeferred
async def test_a_child_that_hangs_is_killed() -> None:
    """Its grandchild, which holds the pipes, is not waited for."""
    with pytest.raises(ToolTimeout):
        await sh("sleep 3 & wait", timeout=0.2)


@pytest.mark.process
@ensureDeferred
async def test_a_child_that_floods_is_killed(monkeypatch) -> None:
    """What it prints must not fill our memory."""
    monkeypatch.setattr(process, "OUTPUT_LIMIT", 100_000)
    with pytest.raises(ToolFailed, match="printed more than 100000 bytes"):
        await sh("while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done")


@pytest.mark.process
@ensureDeferred
async def test_cancelling_kills_it() -> None:
    """Nobody waits for it any more."""
    running = sh("sleep 30")
    running.cancel()
    with pytest.raises(CancelledError):
        await running


@pytest.mark.parametrize("path", ["/none/such", "/proc/version", "/proc"])
@ensureDeferred
async def test_what_cannot_be_run_is_said(path) -> None:
    """Not there, not executable, a folder."""
    with pytest.raises(ToolFailed, match="cannot be run"):
        await run(reactor, (path,), 1.0)


@pytest.mark.parametrize(("text", "line"), [
    (b"", ""), (b"a\nb\n", "b"), (b"x-restore: x-restore: bad\n", "x-restore: bad"),
    (b"bad thing\nError occurred at line: 3\nTry `x -h'\n", "bad thing"),
    (b"\x1b[31mred\xff\n", "?[31mred\ufffd"),
])
def test_one_line(text, line) -> None:
    """Fit for a log."""
    assert one_line(text) == line
