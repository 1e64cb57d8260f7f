"""What a process does to itself, seen in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from envelope.runtime.capabilities import Capability
from tests.support.environment import need
from tests.support.unprivileged import NOBODY, as_nobody, public_folder, python_with_a_capability

pytestmark = pytest.mark.process

ADMIN = 1 << Capability.NET_ADMIN

PASS_ON = """
import os, subprocess
from envelope.runtime.capabilities import Capability, of_this_process
from envelope.runtime.capabilities import pass_on
before = of_this_process()
pass_on(before, [Capability.NET_ADMIN, Capability.NET_RAW])
after = of_this_process()
child = subprocess.run(["grep", "CapEff", "/proc/self/status"], capture_output=True, text=True)
print(before.uid, before.of_children, after.of_children, int(child.stdout.split()[1], 16),
      after.effective & 1 << Capability.NET_ADMIN)
"""


def python(program: str, how: tuple[str, ...] = (), interpreter: str = sys.executable) -> list[str]:
    """The words that a program printed."""
    done = subprocess.run(
        [*how, interpreter, "-c", program], capture_output=True, text=True, timeout=60,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])})
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_no_core_is_dumped_and_the_memory_is_private() -> None:
    """The limit, and the flag that counts where cores are piped to a program."""
    program = """
import ctypes, resource
from envelope.runtime.capabilities import keep_memory_private
keep_memory_private()
print(*resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
    assert python(program) == ["0", "0", "0"]


def test_ambient_capabilities_are_inherited_by_the_tools() -> None:
    assert python(PASS_ON, as_nobody("net_admin")) == [
        str(NOBODY), *[str(ADMIN)] * 4]


def test_without_capabilities_nothing_is_passed_on() -> None:
    assert python(PASS_ON, as_nobody()) == [str(NOBODY), *"0000"]


def test_root_needs_nothing_passed_on() -> None:
    uid, before, after, child, _ = python(PASS_ON)
    if uid != "0":
        need("these tests do not run as root")
    assert before == after == child


@pytest.mark.parametrize("effective", [True, False], ids=["effective", "permitted"])
def test_a_capability_of_the_interpreters_file_is_inherited_by_the_tools(effective: bool) -> None:
    """It would be the service's alone, if it were not made ambient; or not even in force there."""
    how = as_nobody()
    with public_folder() as folder:
        copy = python_with_a_capability(folder, effective)
        assert python(PASS_ON, how, str(copy)) == [str(NOBODY), "0", *[str(ADMIN)] * 3]
