"""Plants each fault in a copy of the source and reports which test notices it (`make mutants`).

Arguments: numbers, or parts of names, of `tests.kernel.faults.FAULTS`; none for all of them. Only
the scenario or the tests that the fault names are run, up to the first failure. Several runs go
side by side, each in a network namespace of its own. First all scenarios are run without any fault,
under the same load, so that a failure later on is the fault's doing.

Prints a line for each run, and last `N faults, M unnoticed`. A run that does not end, or in which
pytest itself fails, notices nothing. The exit status is 1 when a fault goes unnoticed, or when a
scenario fails without any.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.kernel.faults import EVERY, FAULTS, Fault
from tests.kernel.scenarios import SCENARIOS

MODEL = "tests/kernel/test_model.py"
SCENARIO_TEST = "test_the_kernel_holds_what_the_model_holds_in_each_scenario"
ROOT = Path(__file__).parents[2]
COPIED = ("envelope", "tests", "tools", "twisted", "setup.cfg", "pyproject.toml", "README.md")
# Seconds that a run may take, those of one with all scenarios, those that it has to clean up then,
# and those that a scenario waits for a condition to come true.
LONGEST, LONGEST_OF_ALL, LAST, PATIENCE = 300.0, 600.0, 30.0, "15"
# Runs side by side: each waits more than it computes, as in `tools/test`.
AT_ONCE = 2 * (os.cpu_count() or 1)


def chosen(words: list[str]) -> list[tuple[int, Fault]]:
    """The faults that `words` name, with their numbers; all without `words`."""
    return [
        (number, fault) for number, fault in enumerate(FAULTS, 1)
        if not words or str(number) in words
        or any(word in fault.name for word in words if not word.isdigit())
    ]


def noticed(fault: Fault | None, kind: str) -> str:
    """Run the fault's test in a copy of the source; return which one failed, "" if none did.

    Without a fault, run all scenarios with this kind of tool. Raises `RuntimeError` when pytest
    ends in another way than with passed or failed tests, or not in time.
    """
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
            selected = [f"{MODEL}::{SCENARIO_TEST}[{kind}-{fault.by}]"]
        else:
            selected = [fault.by.format(kind=kind)]
        status, printed = run(copy, selected, LONGEST if fault else LONGEST_OF_ALL)
    if status == 0:
        return ""
    failed = re.findall(r"^(?:FAILED|ERROR) \S*?::(.+?)(?: - .*)?$", printed, re.MULTILINE)
    if status != 1 or not failed:
        raise RuntimeError(f"no test failed:\n{printed[-4000:]}")
    steps = re.findall(r"^(\d+) steps", printed, re.MULTILINE)
    return failed[0] + (f", step {steps[-1]}" if steps else "")


def run(copy: Path, selected: list[str], longest: float) -> tuple[int, str]:
    """Run these tests of a copy of the source, for `longest` seconds at most.

    Returns pytest's exit status and what it prints.
    """
    # A file, because a child that outlives its test would keep a pipe open.
    with open(copy / "printed", "w+b") as output:
        tests = subprocess.Popen(
            ["tools/in-namespace", sys.executable, "-m", "pytest", "-q", "-x", *selected],
            cwd=copy, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(copy), "MODEL_PATIENCE": PATIENCE},
        )
        try:
            status = tests.wait(longest)
        except subprocess.TimeoutExpired:
            # So that the tests end what they have started.
            tests.send_signal(signal.SIGINT)
            raise RuntimeError(f"no end within {longest:g} s") from None
        finally:
            try:
                tests.wait(LAST)
            except subprocess.TimeoutExpired:
                tests.kill()
                tests.wait()
        output.seek(0)
        return status, output.read().decode("utf-8", "replace")


def tried(number: int, fault: Fault, kind: str) -> tuple[int, str, str]:
    """One run with a fault: its number, the test that noticed it, the line to print."""
    began = time.monotonic()
    by, why = "", ""
    try:
        by = noticed(fault, kind)
    except RuntimeError as error:
        why = f", {error}"
    lasted = time.monotonic() - began
    name = f"{fault.name} ({kind})" if kind else fault.name
    return number, by, f"{number:3} {name}: {by or f'UNNOTICED{why}'} ({lasted:.0f} s)"


def kinds_of(fault: Fault) -> tuple[str, ...]:
    """The kinds of tools that a fault's test is run with, each by itself."""
    return fault.kinds if fault.by in SCENARIOS or "{kind}" in fault.by else ("",)


def main(words: list[str]) -> int:
    """Try the faults; the exit status."""
    faults = chosen(words)
    unnoticed = set()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            whole = pool.map(noticed, [None] * len(EVERY), EVERY)
            for kind, by in zip(EVERY, whole, strict=True):
                if by:
                    print(f"without any fault ({kind}): {by} fails")
                    return 1
            runs = [(number, fault, kind) for number, fault in faults for kind in kinds_of(fault)]
            for number, by, line in pool.map(tried, *zip(*runs, strict=True)):
                print(line, flush=True)
                if not by:
                    unnoticed.add(number)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    print(f"{len(faults)} faults, {len(unnoticed)} unnoticed")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
