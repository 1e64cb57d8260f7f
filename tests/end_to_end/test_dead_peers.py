"""A client whose host disappears: no packet from it arrives any more."""

from __future__ import annotations

import time

import pytest

from envelope.front.listeners import KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES

pytestmark = pytest.mark.kernel

NOTICED_AFTER = KEEPALIVE_IDLE + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL


@pytest.mark.parametrize("rig", ["nft"], indirect=True)
def test_a_client_that_vanishes_is_noticed_and_shut_out(rig) -> None:
    """Half a minute after the link was cut, its grant is gone and its slot is free.

    This takes that long because the kernel's own keepalive timers are tested.
    """
    service = rig.start()
    client = rig.client(rig.token(300))
    assert client.event()["status"] == 101
    rig.lab.cut_link()
    cut_at = time.monotonic()
    service.until(r"ended after .*: lost", patience=3 * NOTICED_AFTER)
    silence = time.monotonic() - cut_at
    print(f"noticed after {silence:.1f} s")
    assert KEEPALIVE_IDLE < silence < NOTICED_AFTER + 5
    assert "-s 203.0.113.7" not in rig.saved()
    rig.lab.restore_link()
    again = rig.client(rig.token())
    assert again.event()["status"] == 101
    assert service.stop() == 0
