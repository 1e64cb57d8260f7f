"""What several tests of the firewall over the real kernel share."""

from __future__ import annotations

import pytest

from tests.kernel.firewallundertest import FirewallUnderTest


@pytest.fixture
def make(tmp_path):
    """Make a firewall of some kind with some options; its rules are checked when it is closed."""
    made = []

    def make(kind: str, **options: object) -> FirewallUnderTest:
        made.append(FirewallUnderTest(tmp_path, kind, **options))
        return made[0]

    yield make
    made[0].close()
