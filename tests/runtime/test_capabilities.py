"""Whose capabilities the tools get, and what is said of those that are missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from envelope.preflight import Needs, needs_of
from envelope.runtime.capabilities import Capabilities, Capability, missing, of_this_process

# As /proc/PID/status shows a process with CAP_NET_ADMIN alone, ambient.
STATUS = """\
Name:\ttwistd
Uid:\t65534\t65533\t65534\t65534
CapInh:\t0000000000001000
CapPrm:\t0000000000001000
CapEff:\t0000000000001000
CapBnd:\t0000000000003000
CapAmb:\t0000000000001000
NoNewPrivs:\t1
"""
ADMIN, RAW = 1 << Capability.NET_ADMIN, 1 << Capability.NET_RAW
NFT = Needs((Capability.NET_ADMIN,))
LEGACY = Needs((Capability.NET_ADMIN, Capability.NET_RAW), root=True)
NOTHING = Capabilities(0, 0, 0, 0, 0, 0, True)


def test_a_status_is_read() -> None:
    """The effective uid, and all five sets."""
    assert Capabilities.parse(STATUS) == Capabilities(
        65533, ADMIN, ADMIN, ADMIN, ADMIN | RAW, ADMIN, True)
    assert of_this_process().effective <= of_this_process().bounding | of_this_process().permitted


@pytest.mark.parametrize("line", range(1, 8))
def test_a_status_without_a_line_is_no_status(line) -> None:
    lines = STATUS.splitlines()
    with pytest.raises(ValueError, match="no '"):
        Capabilities.parse("\n".join(lines[:line] + lines[line + 1:]))


@pytest.mark.parametrize(("held", "children"), [
    (Capabilities(1000, ADMIN, ADMIN, ADMIN, ADMIN, 0, False), 0),
    (Capabilities(1000, ADMIN, ADMIN, ADMIN, ADMIN, ADMIN, True), ADMIN),
    (Capabilities(0, 0, ADMIN, ADMIN, ADMIN | RAW, 0, False), ADMIN | RAW),
    (Capabilities(0, 0, ADMIN, ADMIN, ADMIN | RAW, 0, True), ADMIN),
    (Capabilities(0, RAW, RAW, 0, 0, 0, True), RAW),
    (NOTHING, 0),
])
def test_what_children_get(held, children) -> None:
    """Ambient ones, or all that root's programs may gain (capabilities(7), "execve")."""
    assert held.of_children == children


@pytest.mark.parametrize(("needs", "held", "said"), [
    (NFT, NOTHING, "CAP_NET_ADMIN is missing"),
    (NFT, replace(NOTHING, bounding=ADMIN, no_new_privileges=False), ""),
    (NFT, Capabilities.parse(STATUS), ""),
    (LEGACY, NOTHING, "CAP_NET_ADMIN and CAP_NET_RAW are missing"),
    (LEGACY, Capabilities.parse(STATUS), "CAP_NET_RAW and root are missing"),
    (LEGACY, replace(NOTHING, uid=5, ambient=ADMIN | RAW), "root is missing"),
    (Needs(), NOTHING, ""),
])
def test_what_is_missing_is_named(needs, held, said) -> None:
    assert needs.lacking(held) == said


def test_names_are_those_of_the_manual() -> None:
    assert missing(0, Capability) == ["CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN", "CAP_NET_RAW"]
    assert missing(ADMIN | RAW | 1 << 10, Capability) == []


def test_a_tool_is_known_by_the_program_behind_its_name(tmp_path) -> None:
    """`iptables` is a link to one or the other, often by way of /etc/alternatives."""
    for program, needed in (("xtables-legacy-multi", LEGACY), ("xtables-nft-multi", NFT)):
        (tmp_path / program).touch()
        (tmp_path / "alternative").unlink(missing_ok=True)
        (tmp_path / "alternative").symlink_to(program)
        link = tmp_path / f"iptables-{program}"
        link.symlink_to("alternative")
        assert needs_of(link) == needed
    assert needs_of(Path("/nowhere/nft")) == NFT
