"""Points 4 and 5: the time of a connect, a close and a packet while many sessions are held."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from benchmarks.lab import BenchLab
from benchmarks.plan import Plan, median, tell, turns
from benchmarks.points.unloaded import PAUSE
from benchmarks.variants import NONE, Variant

_CONNECTS = 30
_SECONDS = 1.0


def measure(plan: Plan, backend: Variant, steps: tuple[int, ...]) -> dict[str, Any]:
    """Figures of `backend` at each number of held sessions, beside a service without rules."""
    found: list[dict[str, Any]] = []
    with ExitStack() as stack:
        bare = stack.enter_context(BenchLab(NONE))
        lab = stack.enter_context(BenchLab(backend))
        for one in (bare, lab):
            one.do("visits", count=100, at_once=4)
        held = 0
        for step in (0, *steps):
            if step:
                tell(f"{backend.name}: {step} held")
            taken = {one: one.do("hold", count=step - held, at_once=16) for one in (bare, lab)}
            held = step
            found.append({
                "held": step, "rules": lab.grants(), "faults": taken[lab]["faults"],
                "hold_seconds": taken[lab]["seconds"], **_at_this_number(plan, bare, lab),
            })
        leaving = lab.do("leave")
        left_behind = lab.grants()
        bare.do("leave")
    return {
        "steps": found, "leave_seconds": leaving["seconds"], "leave_faults": leaving["faults"],
        "left_behind": left_behind,
    }


def _at_this_number(plan: Plan, bare: BenchLab, lab: BenchLab) -> dict[str, Any]:
    names = {bare: "none", lab: "rules"}
    connect: dict[str, list[float]] = {"none": [], "rules": []}
    leave: dict[str, list[float]] = {"none": [], "rules": []}
    packets: dict[str, list[float]] = {"none": [], "rules": []}
    gone: list[float] = []
    for _, one in turns(plan.pick(2, 5), (bare, lab)):
        answer = one.do("visits", count=_CONNECTS, at_once=1, pause=PAUSE)
        connect[names[one]] += answer["connect"]
        leave[names[one]] += answer["leave"]
    for _ in range(plan.pick(1, 3)):
        gone += lab.do("gone", count=10)["gone"]
    # One more client, the newest.
    for one in (bare, lab):
        one.do("hold", count=1, at_once=1)
    for _, one in turns(plan.pick(3, 8), (bare, lab)):
        packets[names[one]].append(one.packets_per_second(_SECONDS))
    return {
        "connect_ms": {name: median(values) for name, values in connect.items()},
        "leave_ms": {name: median(values) for name, values in leave.items()},
        "gone_ms": median(gone),
        "packets_per_second": {name: median(values) for name, values in packets.items()},
    }
