"""The tool fails under the running service: what clients, operators and other clients see."""

from __future__ import annotations

import json
import time

import pytest

from tests.end_to_end.harness import every_kind
from tests.end_to_end.test_operation import get
from tests.kernel.faultyiptables import FaultyTools
from tests.kernel.faultynft import FaultyNft

pytestmark = pytest.mark.kernel

ADMIN = "http://127.0.0.1:9990"


@pytest.fixture
def tools(rig):
    """The rig's tools, in its folder, obedient until told."""
    if rig.kind == "nftables":
        made = FaultyNft(rig.folder)
        rig.tool_options = [f"--nft={rig.folder / 'nft'}"]
    else:
        made = FaultyTools(rig.folder, rig.kind)
        rig.tool_options = [f"--{name}={rig.folder / name}" for name in ("iptables", "ip6tables")]
    return made


def reasons(rig) -> str:
    """What `/readyz` complains of."""
    return "\n".join(json.loads(get(rig, f"{ADMIN}/readyz")[1]).get("reasons", ()))


@every_kind
def test_a_tool_that_fails_costs_nobody_more_than_an_answer(rig, tools) -> None:
    """500 and nothing left; a slot is held until its revocation holds; `/readyz` says why."""
    before = rig.saved()
    service = rig.start(*rig.tool_options, "--max-clients=2")
    held = rig.client(rig.token(600))
    assert held.event()["status"] == 101
    tools.order("fail")
    asked = time.monotonic()
    # Of another family, so that its grant is not the other one's.
    refused = rig.client(rig.token(600), to=rig.lab.host.address6)
    assert refused.event()["status"] == 500
    assert time.monotonic() - asked < 10
    assert "2001:db8::7" not in rig.grants()
    held.tell("leave")
    # The grant that was refused is a reason too, and may be the only one at first.
    while "told to fail (1 revocations outstanding)" not in reasons(rig):
        assert service.process.poll() is None
    # The one slot is held by the revocation, the other is free for whoever cannot be let in.
    refused = rig.client(rig.token(600), to=rig.lab.host.address6)
    assert refused.event()["status"] == 500
    assert "203.0.113.7" in rig.grants()
    tools.order()
    service.until(r"ended after .*: lost")
    while get(rig, f"{ADMIN}/readyz")[0] != 200:
        assert service.process.poll() is None
    assert not rig.grants()
    for _ in range(2):
        assert rig.client(rig.token(600)).event()["status"] == 101
    assert rig.client(rig.token(600)).event()["status"] == 503
    assert service.stop() == 0
    assert rig.saved() == before
