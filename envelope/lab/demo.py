"""The demo: the real service on a host with real iptables, and a client with TLS and tokens.

Each step shows what should happen and checks it in the kernel's rules. Nothing is left behind: the
hosts are network namespaces (`envelope.lab`), the files are in a temporary folder, and the demo
ends itself when it takes too long.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from envelope.lab import LabUnavailable, NetLab
from envelope.lab.chart import Chart
from envelope.lab.fixtures import KEYS, Fixtures
from envelope.lab.narration import Narration, StepFailed

# How long each session lasts, and the seconds after which the demo ends itself.
HELD: Final = "6s"
TIME_LIMIT: Final = 55.0
_OWN_RULE: Final = ("-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
_FAMILIES: Final = ("iptables", "ip6tables")


class Ended(Exception):
    """A signal ends the demo; SIGALRM is its time limit."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"this took longer than {TIME_LIMIT:g} s" if number == signal.SIGALRM
            else f"ended by {signal.Signals(number).name}"
        )
        self.status = 1 if number == signal.SIGALRM else 128 + number


class Demo:
    """The steps of the demo, in their order."""

    def __init__(self, fixtures: Fixtures, out: Narration) -> None:
        self.fixtures, self.out = fixtures, out

    def run(self) -> None:
        """Run every step; raise `StepFailed` at the first that has not the expected result."""
        before = self.open_to_everyone()
        self.service_starts()
        self.refused_without_token()
        self.refused_with_a_strangers_token()
        target4, target6 = self.fixtures.targets
        # IPv4 last, so that most of its time is left for the measurement.
        client6 = self.let_in(target6, "ip6tables")
        client4 = self.let_in(target4, "iptables")
        self.measures_until_the_deadline()
        self.refused_after_the_deadline([client4, client6])
        self.service_stops(before)

    def open_to_everyone(self) -> str:
        """Measure without envelope; return the rules as they are now."""
        self.out.step("Before: the host is open, and the client can measure")
        for tool in _FAMILIES:
            # A rule of the host's own, which must be unchanged at the end.
            self.fixtures.run_tool(tool, *_OWN_RULE)
        self.out.quote("iptables -S", self.fixtures.run_tool("iptables", "-S"))
        self._expect("the measurement server", self.fixtures.start_measurement_server(), "is ready")
        for target in self.fixtures.targets:
            self._measures(target)
        return self.fixtures.saved_rules()

    def service_starts(self) -> None:
        """Start the service, which installs its default-drop rules."""
        self.out.step("The service starts, and closes the host except for its own port")
        options = self.fixtures.service_options(HELD)
        lines = textwrap.wrap(" ".join(options), 84, break_on_hyphens=False)
        self.out.quote("twistd -n envelope \\", " \\\n".join(lines))
        self.fixtures.start_service(options)
        self.out.quote("iptables -S", self.fixtures.run_tool("iptables", "-S"))

    def refused_without_token(self) -> None:
        """The firewall rejects the client's packets; the service rejects its request."""
        self.out.step("Without a token, the firewall refuses the client")
        for target in self.fixtures.targets:
            self._refused(target)
        _, answer = self.fixtures.request_envelope(self.fixtures.targets[0], "")
        self._expect("the service", answer, "answers 401")

    def refused_with_a_strangers_token(self) -> None:
        """The service answers 401 and changes no rule."""
        self.out.step("The same with a token that a stranger has signed")
        target, rules = self.fixtures.targets[0], self.fixtures.saved_rules()
        _, answer = self.fixtures.request_envelope(target, self.fixtures.sign(KEYS[1], HELD))
        self._expect("the service", answer, "answers 401")
        self.out.check(self.fixtures.saved_rules() == rules, "no rule has changed")
        self._refused(target)

    def let_in(self, target: str, tool: str) -> subprocess.Popen[str]:
        """Open an envelope for the client's address of one family; return the client program."""
        client = self.fixtures.lab.client()
        source = client.address4 if tool == "iptables" else client.address6
        self.out.step(f"With a valid token, the client is let in as {source}")
        self._refused(target)
        holder, answer = self.fixtures.request_envelope(target, self.fixtures.sign(KEYS[0], HELD))
        self._expect("the service", answer, "answers 101")
        grants = self.fixtures.run_tool(tool, "-S", "ENVELOPE-GRANTS")
        self.out.quote(f"{tool} -S ENVELOPE-GRANTS", grants)
        end = grants.rstrip().rpartition(" ")[2]
        ends = self.fixtures.run_tool(tool, "-S", end)
        self.out.quote(f"{tool} -S {end}", ends)
        accepts = f"-s {source}/" in grants and "--datestop" in ends
        self.out.check(accepts, f"a rule with an end accepts {source}")
        self._measures(target)
        return holder

    def measures_until_the_deadline(self) -> None:
        """Show an upload and the counters of the rule that lets it in, until the grant ends."""
        target, source = self.fixtures.targets[0], self.fixtures.lab.client().address4
        self.out.step(f"It measures for as long as it may: {source} sends, and the rule counts")
        upload = self.fixtures.upload(target)
        chart = Chart(self.out)
        counted = [(0, 0)]
        while len(words := (line := self.fixtures.next_line(upload)).split()) == 2:
            seconds, sent = float(words[0]), int(words[1])
            if chart.ends_row(seconds):
                counted.append(self.fixtures.counted(_FAMILIES[0], source))
            chart.add(seconds, sent, *counted[-1])
        self.out.keep(f"client: {line}")
        self.out.check(line == "Connection reset by peer", "the deadline cut the measurement off")
        packets, size = max(counted)
        self.out.check(size > 0, f"until then the rule let in {packets:,} packets, {size:,} bytes")

    def refused_after_the_deadline(self, clients: list[subprocess.Popen[str]]) -> None:
        """The service revokes the grants, and then closes the clients' connections."""
        self.out.step(f"Since the deadline, {HELD} after the start, both addresses are refused")
        for client, target, tool in zip(clients, self.fixtures.targets, _FAMILIES, strict=True):
            closed = self.fixtures.next_line(client)
            self._expect("the service", closed, "closes with 4000 deadline")
            grants = self.fixtures.run_tool(tool, "-S", "ENVELOPE-GRANTS")
            self.out.quote(f"{tool} -S ENVELOPE-GRANTS", grants)
            self._refused(target)

    def service_stops(self, before: str) -> None:
        """Stop the service, which puts the rules back."""
        self.out.step("The service stops (SIGTERM), and puts the rules back")
        status = self.fixtures.stop_service()
        self.out.check(status == 0, f"the service ended with status {status}")
        self.out.quote("iptables -S", self.fixtures.run_tool("iptables", "-S"))
        same = self.fixtures.saved_rules() == before
        self.out.check(same, "iptables-save and ip6tables-save print the same as before")

    def _measures(self, target: str) -> None:
        succeeded, line = self.fixtures.measure(target)
        self.out.check(succeeded, f"client measures {target}: {line}")

    def _refused(self, target: str) -> None:
        succeeded, line = self.fixtures.measure(target)
        refused = not succeeded and line == "Connection refused"
        self.out.check(refused, f"client tries to measure {target}: {line}")

    def _expect(self, who: str, line: str, expected: str) -> None:
        self.out.check(line == expected, f"{who} {line}")


@contextmanager
def _signals() -> Iterator[None]:
    """Raise `Ended` for signals and at the time limit, so that everything is cleaned up."""

    def end(number: int, _: FrameType | None) -> None:
        for each in handled:
            # Ignored from now on: a second signal must not interrupt the clean-up.
            signal.signal(each, signal.SIG_IGN)
        raise Ended(number)

    handled = (
        signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM
    )
    earlier = [signal.signal(number, end) for number in handled]
    signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip(handled, earlier, strict=True):
            signal.signal(number, handler)


def main() -> int:
    """Run the demo on standard output; return the exit status."""
    out = Narration(sys.stdout)
    try:
        with _signals():
            return _run(out)
    except Ended as ended:
        out.finish()
        problem, status = str(ended), ended.status
    except LabUnavailable as reason:
        problem, status = str(reason), 1
    sys.stderr.write(f"envelope demo: {problem}\n")
    return status


def _run(out: Narration) -> int:
    with tempfile.TemporaryDirectory(prefix="envelope-demo-") as folder, NetLab() as lab:
        out.say("Two hosts, made of network namespaces, with a virtual cable between them:")
        for host in (lab.host, lab.client()):
            out.say(f"  {host.name:8}  {host.device}  {host.address4}  {host.address6}")
        fixtures = Fixtures(lab, Path(folder))
        try:
            Demo(fixtures, out).run()
        except StepFailed as failure:
            fixtures.close()
            out.step("A step did not have the expected result")
            out.say(str(failure))
            out.quote("the service's log", fixtures.service_log())
            return 1
        finally:
            fixtures.close()
    out.step("Every step went as expected; the two hosts are gone")
    return 0

