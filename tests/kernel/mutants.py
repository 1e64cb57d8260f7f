"""Plants faults in copies of the source, one by one, and tells which test notices (`make mutants`).

Takes numbers or parts of the names of `tests.kernel.faults.FAULTS`; without any it tries them all,
which takes some twenty minutes. The exit status is 1 when a fault goes unnoticed, or when a scene
fails without any.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.kernel.faults import EVERY, FAULTS, Fault
from tests.kernel.scenarios import SCENARIOS

MODEL = "tests/kernel/test_model.py"
SCENE_TEST = "test_the_kernel_holds_what_the_model_holds_in"
ROOT = Path(__file__).parents[2]
COPIED = ("envelope", "tests", "tools", "twisted", "setup.cfg", "pyproject.toml", "README.md")
# Seconds for one fault and one kind of tool, and for what is not settled to settle.
LONGEST, PATIENCE = 300, "15"


def chosen(words: list[str]) -> list[tuple[int, Fault]]:
    """The faults that `words` ask for, with their numbers."""
    return [
        (number, fault) for number, fault in enumerate(FAULTS, 1)
        if not words or str(number) in words
        or any(word in fault.name for word in words if not word.isdigit())
    ]


def noticed(fault: Fault | None, kind: str) -> str:
    """Which test fails with the fault in place, and after how many steps; empty when none does."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__py*"))
            else:
                shutil.copy(ROOT / name, copy / name)
        if fault is not None:
            fault.plant(copy / "envelope")
        if fault is None:
            selected = [MODEL, "-k", f"[{kind}-"]
        elif fault.by in SCENARIOS:
            selected = [f"{MODEL}::{SCENE_TEST}[{kind}-{fault.by}]"]
        else:
            selected = [fault.by]
        done = subprocess.run(
            ["tools/in-namespace", sys.executable, "-m", "pytest", "-q", "-x", *selected],
            cwd=copy, capture_output=True, text=True, timeout=LONGEST, check=False,
            env={**os.environ, "PYTHONPATH": folder, "MODEL_PATIENCE": PATIENCE},
        )
    if done.returncode == 0:
        return ""
    failed = re.findall(r"^(?:FAILED|ERROR) \S*?::(.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode != 1 or not failed:
        raise RuntimeError(f"no test failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    steps = re.findall(r"^(\d+) steps", done.stdout, re.MULTILINE)
    return failed[0] + (f", step {steps[-1]}" if steps else "")


def main(words: list[str]) -> int:
    """Try the faults; the exit status."""
    tried = chosen(words)
    for kind in EVERY:
        if by := noticed(None, kind):
            print(f"without any fault ({kind}): {by} fails")
            return 1
    unnoticed = 0
    for number, fault in tried:
        for kind in fault.kinds:
            began = time.monotonic()
            by = noticed(fault, kind)
            unnoticed += not by
            lasted = time.monotonic() - began
            print(f"{number:3} {fault.name} ({kind}): {by or 'UNNOTICED'} ({lasted:.0f} s)",
                  flush=True)
    print(f"{unnoticed} unnoticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
