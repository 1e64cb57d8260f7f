"""`floor.transaction_ms` as a program in a network namespace of its own."""

from __future__ import annotations

import sys

from benchmarks.floor import transaction_ms
from benchmarks.lab import REPOSITORY
from envelope.lab import NetLab


def in_namespace() -> float:
    """Run the program; CPU milliseconds of one transaction of the open tool."""
    with NetLab() as lab:
        command = [sys.executable, "-m", "benchmarks.floorprogram"]
        return float(lab.host.run(command, cwd=REPOSITORY, check=True).stdout)


if __name__ == "__main__":
    print(transaction_ms())
