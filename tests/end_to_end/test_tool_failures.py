"""The tool fails while the service runs: what clients and operators see."""

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
    """Faulty tools in the rig's folder, which work until told otherwise."""
    if rig.kind == "nftables":
        made = FaultyNft(rig.folder)
        rig.tool_options = [f"--nft={rig.folder / 'nft'}"]
    else:
        made = FaultyTools(rig.folder, rig.kind)
        rig.tool_options = [f"--{name}={rig.folder / name}" for name in ("iptables", "ip6tables")]
    return made


def reasons(rig) -> str:
    """The reasons in the answer of `/readyz`, a line each."""
    return "\n".join(json.loads(get(rig, f"{ADMIN}/readyz")[1]).get("reasons", ()))


@every_kind
def test_a_failing_tool_costs_a_refused_client_only_a_500(rig, tools) -> None:
    """No grant is left; a slot is held until its revocation holds; `/readyz` gives the reason."""
    before = rig.saved()
    service = rig.start(*rig.tool_options, "--max-clients=2")
    held = rig.client(rig.token(600))
    assert held.event()["status"] == 101
    tools.order("fail")
    asked = time.monotonic()
    # From the other address family, so that it does not share the first one's grant.
    refused = rig.client(rig.token(600), to=rig.lab.host.address6)
    assert refused.event()["status"] == 500
    assert time.monotonic() - asked < 10
    assert "2001:db8::7" not in rig.grants()
    held.tell("leave")
    # The refused grant is a reason too, and may be the only one at first.
    while "told to fail (1 revocations outstanding)" not in reasons(rig):
        assert service.process.poll() is None
    # One slot is held by the revocation; the other is free again after each refusal.
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


@every_kind
@pytest.mark.parametrize(("order", "seconds"), [("fail", 2.0), ("hang", 10.0)])
def test_every_client_is_told_that_the_tool_fails(rig, tools, order: str, seconds: float) -> None:
    """Whatever `--request-timeout` says; nothing of a grant is left, and the slot is free."""
    service = rig.start(*rig.tool_options, "--request-timeout=1s")
    tools.order(order)
    for _ in range(5 if order == "fail" else 1):
        answer = rig.client(rig.token(600), patience=20).event()
        assert answer.get("status") == 500, answer
        assert answer["seconds"] < seconds
        assert not rig.grants()
    tools.order()
    while get(rig, f"{ADMIN}/readyz")[0] != 200:
        assert service.process.poll() is None
    assert rig.client(rig.token(600)).event()["status"] == 101
    assert rig.client(rig.token(600)).event()["status"] == 503
    assert service.stop() == 0


@pytest.mark.parametrize("rig", ["nftables"], indirect=True)
def test_what_a_tool_says_at_a_start_shows_no_address(rig) -> None:
    """Neither on standard error, which the last line goes to, nor in the log."""
    tool = rig.folder / "broken"
    tool.write_text("#!/bin/sh\necho no element 203.0.113.7 >&2\nexit 1\n")
    tool.chmod(0o755)
    service = rig.twistd(*rig.options(f"--nft={tool}", "--log-addresses=none"))
    service.until("^envelope: .*no element -$")
    assert service.ended() == 1
    while service.next() is not None:
        pass
    assert "203.0.113.7" not in "".join(service.seen)
