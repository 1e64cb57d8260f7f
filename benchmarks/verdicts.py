"""The goals and whether they are met: one row each, computed from the results. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.plan import median

Entries = Mapping[str, Mapping[str, Any]]
BACKENDS = ("iptables", "nftables", "iptables-legacy")
# Clients in the field give up after this (seconds).
_PATIENCE = 2.0
# Visits one at a time: their name in the results, and in the table.
_PACES = (("unloaded", "unloaded"), ("behind", "right behind another"))


@dataclass(frozen=True, slots=True)
class Row:
    """`measured` and `beside` are texts with their units; `value` is compared with `bound`."""

    point: int
    what: str
    goal: str
    measured: str
    beside: str
    value: float
    bound: float
    at_most: bool = True
    # How far apart the values of single rounds were, as a part of `value`; None without rounds.
    spread: float | None = None

    @property
    def met(self) -> bool:
        """Whether the goal is met; NaN never meets it."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound


def rows(entries: Entries) -> list[Row]:
    """A row for each goal that has results."""
    return [
        *_unloaded(entries), *_coming(entries), *_burst(entries), *_held(entries),
        *_shapes(entries),
        *_memory(entries), *_blocking(entries), *_start(entries), *_openloop(entries),
        *_idle(entries), *_limit(entries),
    ]


# By how much (a part of its value) a figure without rounds may differ by chance.
_CHANCE = 0.15


def moved(before: Entries, after: Entries) -> list[str]:
    """The figures that differ between two runs by more than their rounds do, a line each."""
    old = {(row.point, row.what): row for row in rows(before)}
    lines = []
    for row in rows(after):
        was = old.get((row.point, row.what))
        if was is None or not was.value or was.value == row.value:
            continue
        chance = max(_CHANCE if each.spread is None else each.spread for each in (was, row))
        change = row.value / was.value - 1
        if not abs(change) <= chance:
            better = (change < 0) == row.at_most
            lines.append(
                f"{'better' if better else 'WORSE'}: {row.what}: {was.value:.2f} before, "
                f"{row.value:.2f} now (compared with: {row.goal}; chance: {chance:.0%})"
            )
    return lines


def _spread(values: list[float]) -> float:
    return (max(values) - min(values)) / median(values)


def _beside_none(entries: Entries, point: str) -> Iterator[tuple[str, Any, Any]]:
    """Each backend that a point was measured with: its name, its figures, and those of `none`."""
    figures = entries.get(point, {}).get("variants", {})
    for name in BACKENDS:
        if name in figures:
            yield name, figures[name], figures["none"]


def _unloaded(entries: Entries) -> Iterator[Row]:
    entry = entries.get("unloaded")
    if entry is None:
        return
    for name in BACKENDS:
        if name not in entry["gone_ms"]:
            continue
        for pace, what in _PACES:
            figures = entry[pace]
            rounds = figures["connect_ms_rounds"]
            ratios = [
                with_rules / without for with_rules, without in
                zip(rounds[name], rounds["none"], strict=True)
            ]
            yield Row(1, f"{name}: connect to 101, {what}", "≤ 1.3 x none",
                      f"{figures['connect_ms'][name]:.2f} ms",
                      f"{figures['connect_ms']['none']:.2f} ms", median(ratios), 1.3,
                      spread=_spread(ratios))
            if pace == "behind" and "p99_ms" in figures:
                slow, slow_none = figures["p99_ms"][name], figures["p99_ms"]["none"]
                yield Row(1, f"{name}: the same, 99th percentile", "≤ none + 20 ms",
                          f"{slow:.1f} ms", f"{slow_none:.1f} ms", slow - slow_none, 20)
        gone = entry["gone_ms"][name]
        yield Row(1, f"{name}: close to rule gone", "≤ 10 ms", f"{gone:.2f} ms", "", gone, 10)


def _coming(entries: Entries) -> Iterator[Row]:
    for name, ours, none in _beside_none(entries, "coming"):
        reference = entries["coming"]["variants"]["reference"]
        rate = f"{ours['rate']:.0f} a second"
        pairs = [*zip(ours["rounds"], none["rounds"], strict=True)]
        rates = [one["rate"] / other["rate"] for one, other in pairs]
        costs = [one["cpu_ms"] / other["cpu_ms"] for one, other in pairs]
        yield Row(2, f"{name}: 16 coming and going", "≥ 0.9 x none", rate,
                  f"{none['rate']:.0f} a second", ours["rate"] / none["rate"], 0.9, False,
                  _spread(rates))
        yield Row(2, f"{name}: the same", "≥ 20 x the reference's way", rate,
                  f"{reference['rate']:.1f} a second", ours["rate"] / reference["rate"], 20, False)
        yield Row(2, f"{name}: CPU a visit", "≤ 1.2 x none", f"{ours['cpu_ms']:.2f} ms",
                  f"{none['cpu_ms']:.2f} ms", ours["cpu_ms"] / none["cpu_ms"], 1.2,
                  spread=_spread(costs))
        faults = sum(ours["faults"].values())
        yield Row(2, f"{name}: refusals and errors", "0", str(faults), "", faults, 0)


def _burst(entries: Entries) -> Iterator[Row]:
    for name, ours, none in _beside_none(entries, "burst"):
        clients = entries["burst"]["clients"]
        yield Row(3, f"{name}: {clients} at once, let in", f"{clients}",
                  f"{ours['admitted']}", "", ours["admitted"], clients, False)
        yield Row(3, f"{name}: the same, 99th percentile", "≤ 2 s",
                  f"{ours['p99_ms'] / 1000:.2f} s", f"{none['p99_ms'] / 1000:.2f} s",
                  ours["p99_ms"] / 1000, _PATIENCE)


def _held(entries: Entries) -> Iterator[Row]:
    for name, point, goal, least in (("nftables", 4, 10000, 0.75), ("iptables", 5, 1000, 0.7)):
        entry = entries.get(f"held {name}")
        if entry is None:
            continue
        empty = entry["steps"][0]
        full = max((step for step in entry["steps"] if step["held"] <= goal),
                   key=lambda step: float(step["held"]))
        short = "" if full["held"] == goal else " (short run)"
        held = f"{name}, {full['held']:,} held{short}"
        connect, before = full["connect_ms"]["rules"], empty["connect_ms"]["rules"]
        yield Row(point, f"{held}: connect to 101", "≤ 2 x empty", f"{connect:.2f} ms",
                  f"{before:.2f} ms", connect / before, 2)
        if name == "iptables":
            gone, was = full["gone_ms"], empty["gone_ms"]
            yield Row(point, f"{held}: revoke", "≤ 3 x empty", f"{gone:.2f} ms", f"{was:.2f} ms",
                      gone / was, 3)
        packets = full["packets_per_second"]
        yield Row(point, f"{held}: packets of the last client", f"≥ {least} x no rules",
                  f"{packets['rules'] / 1000:.0f} k/s", f"{packets['none'] / 1000:.0f} k/s",
                  packets["rules"] / packets["none"], least, False)
        yield Row(point, f"{held}: all leave at once", "≤ 10 s", f"{entry['leave_seconds']:.1f} s",
                  f"{entry['left_behind']} rules left",
                  entry["leave_seconds"] if not entry["left_behind"] else float("nan"), 10)


def _shapes(entries: Entries) -> Iterator[Row]:
    entry = entries.get("spread", {"variants": {}})
    for name, shapes in entry["variants"].items():
        worst = min(shapes, key=lambda shape: float(shapes[shape]["newest"]))
        ratio = shapes[worst]["newest"]
        yield Row(5, f"{name}, {entry['grants']:,} grants: packets of the newest, worst of "
                  f"{len(shapes)} shapes of addresses", "≥ 0.7 x no rules", worst,
                  f"{shapes[worst]['one']:.2f} with one", ratio, 0.7, False)


def _memory(entries: Entries) -> Iterator[Row]:
    for name in ("none", *BACKENDS):
        entry = entries.get(f"memory {name}")
        if entry is None:
            continue
        for step in entry["steps"]:
            if step["held"] >= 3000:
                size = step["bytes_a_session"] / 1000
                yield Row(6, f"{name}: memory a session, {step['held']:,} held", "≤ 29 kB",
                          f"{size:.1f} kB", "", size, 29)


def _blocking(entries: Entries) -> Iterator[Row]:
    for name in BACKENDS:
        entry = entries.get(f"blocking {name}")
        if entry is None:
            continue
        longest = {
            (phase, event): figures["cpu"] * 1000
            for phase, found in entry["phases"].items()
            for event, figures in found["longest"].items()
        }
        (phase, event), worst = max(longest.items(), key=lambda item: item[1],
                                    default=(("any phase", "none over 5 ms"), 0.0))
        yield Row(6, f"{name}, {entry['held']:,} held: reactor held up by one event", "≤ 20 ms",
                  f"{worst:.1f} ms", f"{event}, {phase}", worst, 20)


def _start(entries: Entries) -> Iterator[Row]:
    entry = entries.get("start")
    if entry is None:
        return
    seconds = entry["seconds"]
    for name in BACKENDS:
        if name in seconds:
            yield Row(7, f"{name}: start to open doors", "≤ imports + 1 s",
                      f"{seconds[name]:.2f} s", f"{seconds['imports']:.2f} s",
                      seconds[name] - seconds["imports"], 1)
    yield Row(7, "`twistd --help` with our plugin", "≤ 1.1 x without",
              f"{seconds['help with']:.2f} s", f"{seconds['help without']:.2f} s",
              seconds["help with"] / seconds["help without"], 1.1)


# What a figure may be at rest: megabytes resident, and seconds of CPU an hour.
_RESIDENT = 50
_CPU_EMPTY, _CPU_HELD = 2, 10


def _openloop(entries: Entries) -> Iterator[Row]:
    for name, ours, none in _beside_none(entries, "openloop"):
        clients = entries["openloop"]["burst"]
        admitted, last = ours["burst"]["admitted"], ours["burst"]["max_ms"] / 1000
        what = f"{name}: {clients:,} at once"
        yield Row(8, f"{what}, let in", f"{clients:,}", f"{admitted:,}", "", admitted, clients,
                  False)
        yield Row(8, f"{what}, the last one", "≤ 9 s", f"{last:.1f} s",
                  f"{none['burst']['max_ms'] / 1000:.1f} s", last, 9)


def _idle(entries: Entries) -> Iterator[Row]:
    entry = entries.get("idle")
    if entry is None:
        return
    for name in ("none", *BACKENDS):
        figures = entry["variants"].get(name)
        if figures is None:
            continue
        resident = figures["resident_kb"] / 1000
        yield Row(9, f"{name}: memory of an empty service", f"≤ {_RESIDENT} MB",
                  f"{resident:.1f} MB", "", resident, _RESIDENT)
        for held, bound in ((0, _CPU_EMPTY), (entry["held"], _CPU_HELD)):
            spent = figures[f"cpu_{held}"]
            yield Row(9, f"{name}: CPU an hour, nothing happening, {held:,} held", f"≤ {bound} s",
                      f"{spent:.1f} s", "", spent, bound)


def _limit(entries: Entries) -> Iterator[Row]:
    floor = entries.get("profile", {}).get("floor")
    cost = entries.get("coming", {}).get("variants", {}).get("none", {}).get("cpu_ms")
    if floor and cost:
        least = floor["handshake_ms"] + floor["signature"] + 2 * floor["transaction_ms"]
        yield Row(10, "none: CPU a visit", "≤ 2 x the physical limit", f"{cost:.2f} ms",
                  f"{least:.2f} ms", cost / least, 2)
