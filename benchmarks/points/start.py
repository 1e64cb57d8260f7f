"""Point 7: time from start to listening, without Python's imports; and `twistd --help`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

from benchmarks.lab import REPOSITORY, BenchLab
from benchmarks.plan import Plan, median, turns
from benchmarks.variants import NONE, Variant

_IMPORTS = "import twisted.internet.reactor, autobahn.twisted.websocket"
# Runs twistd's main function with or without our plugin's folder on the path.
_HELP = """
import sys
if sys.argv.pop() == "without":
    sys.path = [path for path in sys.path if path.rstrip("/") != sys.argv[1]]
del sys.argv[1]
sys.argv = ["twistd", "--help"]
from twisted.scripts.twistd import run
run()
"""


def measure(plan: Plan) -> dict[str, Any]:
    """Medians, in seconds."""
    rounds = plan.pick(7, 15)
    found: dict[str, list[float]] = {}
    variants: tuple[Variant | None, ...] = (None, NONE, *plan.backends)
    for _, variant in turns(rounds, variants):
        name = variant.name if variant else "imports"
        seconds = _start(variant) if variant else _run([sys.executable, "-c", _IMPORTS])
        found.setdefault(name, []).append(seconds)
    # Each takes 0.25 s; more rounds than a start, because the difference is smaller.
    for _, which in turns(3 * rounds, ("without", "with")):
        command = [sys.executable, "-c", _HELP, str(REPOSITORY), which]
        found.setdefault(f"help {which}", []).append(_run(command))
    return {
        "seconds": {name: median(values) for name, values in found.items()}, "rounds": found,
    }


def _start(variant: Variant) -> float:
    with BenchLab(variant) as lab:
        return lab.ready_after


def _run(command: list[str]) -> float:
    # In another folder than the repository, which Python would put on its path.
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", env={
        name: value for name, value in os.environ.items() if name != "PYTHONPATH"
    })
    return time.perf_counter() - began
