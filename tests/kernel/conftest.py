"""What several tests of the firewall over the real kernel share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel.firewallundertest import LOOSE, FirewallUnderTest
from tests.kernel.leftovers import CLIENT, CLIENT6, STRANGER, World
from tests.kernel.udpprobe import addresses


@pytest.fixture
def make(tmp_path):
    """Make a firewall of some kind with some options; its rules are checked when it is closed."""
    made = []

    def make(kind: str, **options: object) -> FirewallUnderTest:
        made.append(FirewallUnderTest(tmp_path, kind, **options))
        return made[0]

    yield make
    made[0].close()


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    """A network without rules, for services of one backend after another."""
    made = World(tmp_path)
    made.wipe()
    try:
        with addresses(CLIENT, STRANGER, CLIENT6):
            yield made
    finally:
        made.wipe()
        LOOSE.write_text("1")
