"""What the process does at each signal, and from when on."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from envelope.runtime.signals import ANSWERS, Answer, name_of
from tests.support.loopbackservice import TWISTD, twistd

OPEN = ("--token-required=false",)
STOPS = [number for number, answer in ANSWERS.items() if answer is Answer.STOP]
FATAL = ("SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGSEGV", "SIGSYS")
STRAYS = [number for number, answer in ANSWERS.items() if answer in (Answer.NOTE, Answer.IGNORE)]


def test_every_signal_is_decided() -> None:
    assert signal.valid_signals() == set(ANSWERS)


def test_what_ends_the_process_or_is_the_kernels_own() -> None:
    """Nothing else may be left to the kernel, whose default is death for most."""
    left = {name_of(number) for number, answer in ANSWERS.items() if answer is Answer.DEFAULT}
    assert left == {
        *FATAL, "SIGKILL", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGCONT", "SIGCHLD", "SIGURG",
        "SIGWINCH",
    }


def test_real_time_signals_have_names() -> None:
    assert name_of(signal.SIGRTMIN) == "SIGRTMIN"
    assert name_of(signal.SIGRTMIN + 3) == "SIGRTMIN+3"
    assert name_of(signal.SIGRTMAX) == f"SIGRTMIN+{signal.SIGRTMAX - signal.SIGRTMIN}"


@pytest.mark.process
@pytest.mark.parametrize("number", STOPS, ids=name_of)
def test_a_stop_is_clean(tmp_path: Path, number: int) -> None:
    with twistd(tmp_path, *OPEN) as service:
        service.until(r"\bready$")
        assert service.stop(number) == 0
        service.until("stopped")


@pytest.mark.process
@pytest.mark.parametrize("when", ["ready", "before"])
def test_no_stray_ends_the_service(tmp_path: Path, when: str) -> None:
    """Each is a line in the log at the most, also when it comes while twistd is being imported."""
    early = [*STRAYS, signal.SIGHUP, signal.SIGUSR1] if when == "before" else []
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nclass Finder:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'envelope.service':\n"
        f"            for number in {[int(number) for number in early]}:\n"
        "                os.kill(os.getpid(), number)\nsys.meta_path.insert(0, Finder())\n")
    with twistd(tmp_path, *OPEN, env={"PYTHONPATH": str(tmp_path)}) as service:
        noted = [number for number in early if ANSWERS[number] is Answer.NOTE]
        for number in noted:
            service.until(rf"{re.escape(name_of(number))} has no effect$")
        service.until(r"\bready$")
        for number in STRAYS:
            service.process.send_signal(number)
            if ANSWERS[number] is Answer.NOTE:
                service.until(rf"{re.escape(name_of(number))} has no effect$")
        assert service.stop() == 0


@pytest.mark.process
@pytest.mark.parametrize("name", FATAL)
def test_a_fault_of_the_process_ends_it(tmp_path: Path, name: str) -> None:
    with twistd(tmp_path, *OPEN) as service:
        service.until(r"\bready$")
        number = getattr(signal, name)
        assert service.stop(number) == -number


@pytest.mark.process
def test_signals_that_were_blocked_or_ignored_are_answered(tmp_path: Path) -> None:
    """As a parent may leave them behind."""
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGQUIT, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, sys.executable, TWISTD, "-n", "--pidfile=", "envelope",
         "--listen=127.0.0.1:0", "--admin=none", "--status=none", "--firewall=none", *OPEN],
        stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    with process:
        assert process.stdout is not None
        while not process.stdout.readline().endswith("ready\n"):
            assert process.poll() is None
        process.send_signal(signal.SIGQUIT)
        process.stdout.read()
        assert process.wait(20) == 0
