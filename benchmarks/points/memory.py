"""Point 6: resident memory of a held TLS session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.lab import REPOSITORY, BenchLab
from benchmarks.plan import Plan, tell
from benchmarks.variants import Variant

# First visits fill the interpreter's arenas and caches, which are not part of a session's memory.
_WARM = 200


def measure(
    _plan: Plan, variant: Variant, steps: tuple[int, ...], checkout: Path = REPOSITORY
) -> dict[str, Any]:
    """Resident memory of the service (bytes) at each number of sessions, without its children."""
    found = []
    with BenchLab(variant, checkout=checkout) as lab:
        lab.do("visits", count=_WARM, at_once=16)
        first = lab.resident()
        held = 0
        for step in steps:
            answer = lab.do("hold", count=step - held, at_once=16)
            held = step
            grown = (lab.resident() - first) * 1024
            found.append({
                "held": answer["held"], "faults": answer["faults"], "grown": grown,
                "bytes_a_session": grown / step,
            })
            tell(f"{variant.name}: {step} held, {grown / step / 1000:.1f} kB each")
        left = lab.do("leave")
        after = (lab.resident() - first) * 1024
    return {
        "empty": first * 1024, "steps": found, "grown_after_all_left": after,
        "leave_seconds": left["seconds"], "leave_faults": left["faults"],
    }
