"""An unexpected fault at any point of a start or a stop: everything is undone all the same."""

from __future__ import annotations

import sys

import pytest

from tests.end_to_end.harness import HERE, Rig, every_kind

pytestmark = pytest.mark.kernel


def broken(rig: Rig, method: str):
    by = (sys.executable, HERE / "brokenstart.py", method)
    return rig.twistd(
        *rig.options(), by=by, env={"PYTHONPATH": str(HERE.parent.parent), "PATH": "/usr/bin"})


@every_kind
@pytest.mark.parametrize(
    "method", ["Credentials.start", "Collector.start", "EnvelopeService._bind_ports"])
def test_a_start_that_breaks_is_undone(rig: Rig, method: str) -> None:
    """Rules, listeners and tools; the exit status is 1, and a second start works."""
    before = rig.saved()
    service = broken(rig, method)
    service.until("envelope: the start failed unexpectedly; the log has the traceback")
    service.until("broken for a test")
    assert service.ended() == 1
    assert rig.saved() == before
    assert rig.start().stop() == 0


@pytest.mark.parametrize("rig", ["nft"], indirect=True)
@pytest.mark.parametrize("method", ["Credentials.stop", "Collector.stop", "Sessions.end_all"])
def test_a_step_of_the_stop_that_breaks_stops_no_other(rig: Rig, method: str) -> None:
    before = rig.saved()
    service = broken(rig, method)
    service.until(r"\bready$")
    assert service.stop() == 1
    service.until("envelope: a step of the stop failed unexpectedly; the log has the traceback")
    assert rig.saved() == before
