"""Writes docs/performance.md and its plots from the results."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import plots, trace
from benchmarks.verdicts import Row, rows

Entries = Mapping[str, Mapping[str, Any]]
_TEXTS = Path(__file__).with_name("texts")


def write(entries: Entries, docs: Path) -> None:
    """Write the page and the plots into `docs`."""
    drawn = plots.draw(entries, docs / "performance")
    parts = [
        _text("introduction"),
        _verdicts(rows(entries)),
        _text("goals"),
        "## How it grows\n",
        *(f"![{title}](performance/{name})\n" for name, title in drawn),
        _held(entries), _spread(entries), _trace(entries), _floor(entries), _where(entries),
        _text("choices"), _limits(entries),
        _taken(entries),
    ]
    (docs / "performance.md").write_text("\n".join(filter(None, parts)))


def _text(name: str) -> str:
    return (_TEXTS / f"{name}.md").read_text()


def _table(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    rule = "|".join("---" for _ in head)
    cells = [f"| {' | '.join(line)} |" for line in (head, *lines)]
    return "\n".join([cells[0], f"|{rule}|", *cells[1:], ""])


def _verdicts(found: list[Row]) -> str:
    lines = [
        (str(row.point), row.what, row.goal, row.measured, row.beside, f"{row.value:.2f}",
         "met" if row.met else "**not met**")
        for row in found
    ]
    return _table(("point", "what", "goal", "measured", "beside", "compared", ""), lines)


def _held(entries: Entries) -> str:
    lines = []
    for name, entry in entries.items():
        if not name.startswith("held "):
            continue
        for step in entry["steps"]:
            packets = step["packets_per_second"]
            lines.append((
                name.removeprefix("held "), f"{step['held']:,}",
                f"{step['connect_ms']['rules']:.2f}", f"{step['connect_ms']['none']:.2f}",
                f"{step['gone_ms']:.2f}", f"{packets['rules'] / packets['none']:.2f}",
            ))
    if not lines:
        return ""
    return _table(
        ("backend", "held", "connect to 101 (ms)", "the same with none (ms)",
         "close to rule gone (ms)", "packets per second / no rules"), lines,
    )


def _spread(entries: Entries) -> str:
    entry = entries.get("spread")
    if entry is None:
        return ""
    lines = [
        (name, shape, *(f"{ratios[each]:.2f}" for each in ("plain", "one", "newest")))
        for name, shapes in entry["variants"].items() for shape, ratios in shapes.items()
    ]
    return "Packets per second / no rules, of other addresses:\n\n" + _table(
        ("backend", "addresses of the guests", "two plain rules", "one grant",
         f"newest of {entry['grants']:,}"), lines,
    )


def _trace(entries: Entries) -> str:
    entry = entries.get("trace")
    if entry is None:
        return ""
    return "\n".join([
        "## Where the time of one change goes\n", _text("trace"),
        _table(("backend", "change", *trace.PARTS), trace.rows(entry["variants"])),
    ])


def _floor(entries: Entries) -> str:
    entry = entries.get("profile")
    if entry is None:
        return ""
    floor = entry["floor"]
    lines = [
        ("TLS 1.3 handshake, server's half, with request and answer",
         f"{floor['handshake_ms']:.3f}"),
        ("Ed25519 verification", f"{floor['signature']:.3f}"),
        ("one transaction of the kernel tool that stays open, in and out together",
         f"{2 * floor['transaction_ms']:.3f}"),
    ]
    total = floor["handshake_ms"] + floor["signature"] + 2 * floor["transaction_ms"]
    cpu = entries.get("coming", {}).get("variants", {}).get("iptables", {}).get("cpu_ms")
    beside = "" if cpu is None else f" A visit took {cpu:.2f} ms of CPU, children included."
    return "\n".join([
        "## The physical limit\n", _table(("each done alone, in a loop", "ms of CPU"), lines),
        f"Together {total:.2f} ms a visit: no service that uses OpenSSL, a signed token and the "
        f"kernel's own tool can be cheaper.{beside}\n",
    ])


def _limits(entries: Entries) -> str:
    try:
        floor = entries["profile"]["floor"]
        coming, traced = entries["coming"]["variants"], entries["trace"]["variants"]
        tools = {name: f"{name} tool alone" for name in ("iptables", "nftables")}
        told = {name: figures["grant"][trace.PARTS[-1]] for name, figures in traced.items()}
        resident = entries["idle"]["variants"]["bare"]["resident_kb"]
    except KeyError:
        return ""
    limit = floor["handshake_ms"] + floor["signature"] + 2 * floor["transaction_ms"]
    none, bare = coming["none"]["cpu_ms"], coming["bare"]["cpu_ms"]
    traces = {f"{name}_told": told[name] for name in tools}
    traces |= {f"{name}_trace": told[tool] for name, tool in tools.items()}
    return _text("limits").format(
        bare=bare, bare_limit=bare / limit, none=none, resident=resident / 1000, **traces,
    )


def _where(entries: Entries) -> str:
    entry = entries.get("profile")
    if entry is None:
        return ""
    total = sum(entry["ms_a_visit"].values())
    kinds = sorted(entry["ms_a_visit"].items(), key=lambda item: -item[1])
    lines = [(kind, f"{ms / total * 100:.0f} %") for kind, ms in kinds if ms / total > 0.005]
    return "\n".join([
        "## Where the time goes\n", _text("where"),
        _table(("kind of work", "share of the service's time"), lines),
    ])


def _taken(entries: Entries) -> str:
    lines = []
    for name, entry in sorted(entries.items()):
        taken = entry["taken"]
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(taken["at"]))
        lines.append((
            name, "full" if taken["full"] else "short", when, f"`{taken['commit']}`",
            f"{taken['seconds']:.0f} s", f"{taken['load'][0]:.1f}",
        ))
    newest = max((entry["taken"] for entry in entries.values()), key=lambda taken: int(taken["at"]))
    packages = ", ".join(f"{name} {number}" for name, number in sorted(newest["packages"].items()))
    return "\n".join([
        "## When and on what\n",
        f"{newest['cpu']}, Linux {newest['kernel']}, Python {newest['python']}, {packages}.\n",
        "`load` is the machine's load average when the measurement ended, its own load included.\n",
        _table(("measurement", "run", "taken (UTC)", "commit", "took", "load"), lines),
    ])
