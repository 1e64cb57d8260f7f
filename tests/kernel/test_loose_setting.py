"""The rules remember that nf_conntrack_tcp_loose was 1 for as long as it is 0."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from tests.kernel.firewallundertest import SERVICE, Kernel, is_loose

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(("one", "other"), [(4, 6), (6, 4)])
@pytest.mark.parametrize("kind", ["nft", "legacy"])
@ensureDeferred
async def test_what_one_family_remembers_of_the_kernels_setting_both_do(
    world, kind, one, other
) -> None:
    """Others may remove one family's rules, and the other family's after the next start."""
    for family in (one, other):
        await world.make(kind).open(SERVICE)
        await world.kill()
        kernel = Kernel(kind, world.folder / "lock")
        kernel.change(family, "-P INPUT ACCEPT", "-F", "-X")
    assert not is_loose()
    last = world.make(kind)
    await last.open(SERVICE)
    await last.close()
    assert is_loose()
