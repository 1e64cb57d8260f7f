"""Prometheus' promtool; the test is left out, or fails in CI, where it was not prepared."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.environment import need

_TOOL = Path(__file__).parents[2] / "tools" / "promtool"


def promtool(*arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run it with these arguments and this standard input, and return how it ended."""
    done = subprocess.run(
        [_TOOL, *arguments], capture_output=True, text=True, input=given, check=False, timeout=120)
    if done.returncode == 127:
        need(done.stderr.strip())
    return done
