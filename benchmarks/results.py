"""The results as JSON: an entry for each measurement, with time, commit and machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("twisted", "autobahn", "pyopenssl", "cryptography", "jwcrypto")


class Results:
    """The entries of one file, written after each measurement: a run can be resumed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: dict[str, dict[str, Any]] = (
            json.loads(path.read_text()) if path.exists() else {}
        )

    def committed(self) -> dict[str, dict[str, Any]]:
        """The entries of the file as it was committed last; none where git cannot tell."""
        shown = subprocess.run(
            ["git", "show", f"HEAD:./{self._path.name}"], cwd=self._path.parent, check=False,
            capture_output=True, text=True,
        )
        entries: dict[str, dict[str, Any]] = json.loads(shown.stdout) if shown.stdout else {}
        return entries

    def put(self, name: str, full: bool, data: dict[str, Any], seconds: float) -> None:
        """Store an entry in place of the older one of that name."""
        self.entries[name] = {"taken": {"full": full, **taken(seconds)}, **data}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self.entries, indent=1, sort_keys=True) + "\n")

    def age(self, name: str, full: bool) -> float:
        """Seconds since this commit's entry of a run of this length was taken; else infinity."""
        entry = self.entries.get(name)
        if entry is None or (entry["taken"]["commit"], entry["taken"]["full"]) != (commit(), full):
            return float("inf")
        return time.time() - float(entry["taken"]["at"])


def by_number(steps: Mapping[str, Any]) -> tuple[list[int], list[Any]]:
    """The numbers that are the keys, from the smallest up, and their values.

    The results have their keys in the order of texts, in which 16 comes before 2.
    """
    numbers = sorted(map(int, steps))
    return numbers, [steps[str(number)] for number in numbers]


def commit() -> str:
    """The commit that is checked out, with a plus when files differ from it."""
    here = Path(__file__).parent
    try:
        text = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"], cwd=here, check=True,
            capture_output=True, text=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return text.strip()


def taken(seconds: float) -> dict[str, Any]:
    """Time, duration, machine and load of a measurement."""
    cpu = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
           if line.startswith("model name")]
    return {
        "at": round(time.time()), "seconds": round(seconds, 1), "commit": commit(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "cpu": f"{os.cpu_count()} x {cpu[0] if cpu else platform.machine()}",
        "kernel": platform.release(), "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }
