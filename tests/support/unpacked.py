"""Programs that CI fetches without installing them; a test is left out, or fails in CI, without."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.environment import need

UNPACKED = Path(__file__).parents[2] / "tools" / "unpacked"


def unpacked(
    program: str, *arguments: str | Path, given: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program with these arguments and this standard input, and return how it ended."""
    done = subprocess.run([UNPACKED, program, *arguments], capture_output=True, text=True,
                          input=given, check=False, timeout=120)
    if done.returncode == 127:
        need(done.stderr.strip())
    return done


def promtool(*arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """Prometheus' promtool."""
    return unpacked("promtool", *arguments, given=given)
