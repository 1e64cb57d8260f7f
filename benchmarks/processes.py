"""CPU and memory of a process and its children, read from /proc (proc(5))."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def _fields(pid: int) -> list[str]:
    # The name in parentheses may contain any character.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def children(pid: int) -> list[int]:
    """The process ids of direct children that are alive."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            found += [int(word) for word in (task / "children").read_text().split()]
    return found


def cpu_seconds(pid: int) -> float:
    """CPU seconds of `pid` and all its descendants, including those that have ended.

    Living ones are counted in nanoseconds (schedstat), ended ones in ticks of 10 ms.
    """
    total = 0.0
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0]) / 1e9
        reaped = _fields(pid)[13:15]
        total += sum(map(int, reaped)) / _TICK
        total += sum(map(cpu_seconds, children(pid)))
    return total


def resident_kilobytes(pid: int) -> int:
    """Resident memory of `pid` alone, in 1,024 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)


def delivered(pid: int, version: int = 4) -> int:
    """How many packets of an IP version have passed INPUT's rules in `pid`'s network namespace."""
    if version == 6:
        counters = Path(f"/proc/{pid}/net/snmp6").read_text().split()
        return int(counters[counters.index("Ip6InDelivers") + 1])
    lines = Path(f"/proc/{pid}/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Ip:"))
    return int(values[names.index("InDelivers")])
