"""`envelope demo`: every step has the expected result, or the demo names the one that has not."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from envelope.lab import LabUnavailable, demo
from envelope.lab.chart import Chart
from envelope.lab.narration import Narration, StepFailed

ENVELOPE = Path(sys.executable).with_name("envelope")


def start(folder: Path, tools: Path | None = None) -> subprocess.Popen[str]:
    """Start it; `tools` is a folder to look for iptables in first."""
    env = {**os.environ, "TMPDIR": str(folder), "SSH_CONNECTION": "203.0.113.9 5000 203.0.113.1 22",
           "ENVELOPE_DEVICE": "nonsense"}
    if tools is not None:
        env["PATH"] = f"{tools}:{env['PATH']}"
    return subprocess.Popen(
        [sys.executable, ENVELOPE, "demo"], env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0,
    )


@pytest.mark.kernel
@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_every_step_has_the_expected_result(lab, tmp_path_factory, tmp_path, kind) -> None:
    """With either kind of iptables; the user's own settings have no effect."""
    tools = tmp_path_factory.mktemp("tools")
    for family in ("iptables", "ip6tables"):
        for part in ("", "-save", "-restore"):
            (tools / f"{family}{part}").symlink_to(f"/usr/sbin/{family}-{kind}{part}")
    out, err = start(tmp_path, tools).communicate(timeout=60)
    assert err == ""
    assert re.findall(r"^(\d+)\.", out, re.MULTILINE) == [str(n) for n in range(1, 11)]
    assert out.rstrip().endswith("Every step went as expected; the two hosts are gone")
    assert "-s 203.0.113.7/32" in out
    assert "-s 2001:db8::7/128" in out
    assert len(re.findall(r"^ +\d\.\d s  #+ +[\d.]+ Gbit/s", out, re.MULTILINE)) > 3
    assert "NOT AS EXPECTED" not in out
    assert "\033" not in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.kernel
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT])
def test_interrupted_it_cleans_up(lab, tmp_path, number) -> None:
    """While the service runs and a client is let in. Keys reach the whole process group."""
    child = start(tmp_path)
    while "answers 101" not in (line := child.stdout.readline()):
        assert line, child.stderr.read()
    os.killpg(child.pid, number)
    _, err = child.communicate(timeout=10)
    assert (child.returncode, err) == (
        128 + number, f"envelope demo: ended by {signal.Signals(number).name}\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.kernel
def test_it_ends_when_its_output_is_closed(lab, tmp_path) -> None:
    """As in `envelope demo | head -1`: no message, and nothing is left behind."""
    child = start(tmp_path)
    assert child.stdout.readline()
    child.stdout.close()
    assert (child.wait(30), child.stderr.read()) == (1, "")
    child.stderr.close()
    assert list(tmp_path.iterdir()) == []


def ended(monkeypatch, capsys, run) -> tuple[int, str]:
    """The status and the message of a demo that runs like this."""
    monkeypatch.setattr(demo, "_run", run)
    status = demo.main()
    return status, capsys.readouterr().err


def test_a_demo_that_takes_too_long_is_ended(monkeypatch, capsys) -> None:
    monkeypatch.setattr(demo, "TIME_LIMIT", 0.05)
    status, err = ended(monkeypatch, capsys, lambda _: signal.pause())
    assert status == 1
    assert err == "envelope demo: this took longer than 0.05 s\n"


def test_a_machine_without_namespaces_is_one_line(monkeypatch, capsys) -> None:
    def run(_: Narration) -> int:
        raise LabUnavailable("not here")

    assert ended(monkeypatch, capsys, run) == (1, "envelope demo: not here\n")


@pytest.mark.kernel
def test_a_step_that_fails_is_shown_with_the_services_log(lab, monkeypatch, capsys) -> None:
    def fail(self: demo.Demo) -> None:
        self.fixtures.start_service(["--nonsense"])

    monkeypatch.setattr(demo.Demo, "run", fail)
    assert demo.main() == 1
    out = capsys.readouterr().out
    assert "the service did not start" in out
    assert "nonsense" in out


def test_an_unexpected_result_is_raised() -> None:
    out = io.StringIO()
    with pytest.raises(StepFailed, match="the sky is green"):
        Narration(out).check(False, "the sky is green")
    assert out.getvalue() == "   NOT AS EXPECTED  the sky is green\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


ERASED = "\r\033[K"


def test_a_measurement_is_drawn_a_row_each_half_second(monkeypatch) -> None:
    """A tenth of the rate is a tenth of the bar; on a terminal the row is drawn in between too."""
    monkeypatch.setenv("TERM", "xterm")
    plain, terminal = io.StringIO(), Terminal()
    for out in (plain, terminal):
        chart = Chart(Narration(out))
        for tenth in range(1, 11):
            sent = 10**8 * tenth if tenth < 6 else 5 * 10**8 + 10**7 * (tenth - 5)
            chart.add(tenth / 10, sent, 1000 * tenth, 2**30)
    first, second = plain.getvalue().splitlines()[1:]
    assert (first.count("#"), second.count("#")) == (25, 2)
    assert first.split()[-6:] == ["8.0", "Gbit/s", "5,000", "packets", "1.00", "GiB"]
    lines = terminal.getvalue().split("\n")[1:-1]
    assert [line.count(ERASED) for line in lines] == [5, 5]
    assert [line.rpartition(ERASED)[2] for line in lines] == [first, second]


def test_what_follows_a_line_that_is_drawn_is_a_new_line(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    narration = Narration(out)
    narration.draw("a row")
    narration.say("the end")
    narration.finish()
    assert out.getvalue() == f"{ERASED}   a row\n   the end\n"


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_is_for_terminals_without_no_color(monkeypatch, no_color, coloured) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    out = Terminal()
    Narration(out).step("first")
    assert ("\033" in out.getvalue()) is coloured
