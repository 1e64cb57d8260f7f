"""Which capabilities a process has, which its children get, and which are missing."""

from __future__ import annotations

import pytest

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
NOTHING = Capabilities(0, 0, 0, 0, 0, 0, True)


def test_a_status_is_read() -> None:
    """The effective uid, and all five sets."""
    assert Capabilities.parse(STATUS) == Capabilities(
        65533, ADMIN, ADMIN, ADMIN, ADMIN | RAW, ADMIN, True)
    assert of_this_process().effective <= of_this_process().bounding | of_this_process().permitted


@pytest.mark.parametrize("line", range(1, 8))
def test_a_status_without_a_line_is_refused(line) -> None:
    lines = STATUS.splitlines()
    with pytest.raises(ValueError, match="no usable line '"):
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


def test_names_are_those_of_the_manual() -> None:
    assert missing(0, Capability) == ["CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN", "CAP_NET_RAW"]
    assert missing(ADMIN | RAW | 1 << 10, Capability) == []
