"""The plots of docs/performance.md, as SVG, from the same entries as its tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.results import by_number

Entries = Mapping[str, Mapping[str, Any]]
# The same input gives the same file: no dates, no random names.
mpl.rcParams.update({"svg.hashsalt": "envelope", "font.size": 9, "axes.grid": True,
                     "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False})
_COLOURS = {"none": "#777777", "iptables": "#1f77b4", "nftables": "#2ca02c",
            "iptables-legacy": "#9467bd", "reference": "#d62728", "bare": "#bbbbbb"}


def draw(entries: Entries, folder: Path) -> list[tuple[str, str]]:
    """Draw all plots that have entries; returns their file names and captions."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    if "coming" in entries:
        drawn.append(_concurrency(entries, folder / "concurrency.svg"))
    if "openloop" in entries:
        drawn.append(_open_loop(entries, folder / "openloop.svg"))
    held = {name: entries[f"held {name}"] for name in _COLOURS if f"held {name}" in entries}
    if held:
        drawn.append(_grants(held, folder / "grants.svg"))
    memory = {name: entries[f"memory {name}"] for name in _COLOURS if f"memory {name}" in entries}
    if memory:
        drawn.append(_memory(memory, folder / "memory.svg"))
    return drawn


def _concurrency(entries: Entries, path: Path) -> tuple[str, str]:
    figure, (rate, latency) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for name, figures in entries["coming"]["variants"].items():
        if not figures["sweep"]:
            continue
        at_once, steps = by_number(figures["sweep"])
        for axes, key in ((rate, "rate"), (latency, "connect_ms")):
            axes.plot(at_once, [step[key] for step in steps],
                      marker="o", markersize=3, label=name, color=_COLOURS[name])
    _logarithmic(rate, "clients at once", "visits a second")
    _logarithmic(latency, "clients at once", "connect to 101, median (ms)")
    return _save(figure, path, "Rate and latency against concurrency")


def _open_loop(entries: Entries, path: Path) -> tuple[str, str]:
    figure, (latency, answered) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for name, figures in entries["openloop"]["variants"].items():
        rates, steps = by_number(figures["rates"])
        for key, line in (("median_ms", "-"), ("p99_ms", "--")):
            latency.plot(rates, [step[key] for step in steps], linestyle=line, marker="o",
                         markersize=3, label=f"{name}, {key[:-3]}", color=_COLOURS[name])
        answered.plot(rates, [step["rate"] for step in steps], marker="o", markersize=3,
                      label=name, color=_COLOURS[name])
    for axes, label in ((latency, "scheduled to 101 (ms)"), (answered, "let in, a second")):
        axes.set(xlabel="clients a second, on a fixed schedule", ylabel=label)
        axes.legend()
    latency.set_yscale("log")
    return _save(figure, path, "Latency against the rate of a fixed schedule")


def _grants(held: Entries, path: Path) -> tuple[str, str]:
    figure, (cost, packets) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for name, entry in held.items():
        steps = entry["steps"]
        # A logarithmic axis has no 0; the last client's own rule counts as 1.
        number = [max(1, step["held"]) for step in steps]
        cost.plot(number, [step["connect_ms"]["rules"] for step in steps], marker="o",
                  markersize=3, label=f"{name}: in", color=_COLOURS[name])
        cost.plot(number, [step["gone_ms"] for step in steps], marker="o", markersize=3,
                  linestyle="--", label=f"{name}: out", color=_COLOURS[name])
        packets.plot(
            number,
            [step["packets_per_second"]["rules"] / step["packets_per_second"]["none"]
             for step in steps],
            marker="o", markersize=3, label=name, color=_COLOURS[name])
    _logarithmic(cost, "grants in force", "one client in, out (ms)")
    packets.set_ylim(0, 1.1)
    _logarithmic(packets, "grants in force", "packets per second / no rules", "linear")
    return _save(figure, path, "Cost of a change, and packets per second, against grants")


def _memory(memory: Entries, path: Path) -> tuple[str, str]:
    figure, axes = plt.subplots(figsize=(4.5, 3.4), layout="constrained")
    for name, entry in memory.items():
        held = [0, *(step["held"] for step in entry["steps"])]
        grown = [0, *(step["grown"] / 1e6 for step in entry["steps"])]
        axes.plot(held, grown, marker="o", markersize=3, label=name, color=_COLOURS[name])
    axes.plot(held, [number * 29e-3 for number in held], linestyle=":", color="black",
              label="29 kB each")
    axes.set(xlabel="sessions held", ylabel="resident memory, grown by (MB)")
    axes.legend()
    return _save(figure, path, "Memory against held sessions")


def _logarithmic(axes: Axes, x: str, y: str, scale: str = "log") -> None:
    axes.set(xscale="log", yscale=scale, xlabel=x, ylabel=y)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend()


def _save(figure: Any, path: Path, title: str) -> tuple[str, str]:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path.name, title
