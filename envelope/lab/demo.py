"""The main job, shown for real: two hosts, twistd, iptables, TLS, tokens.

Each step says what should happen, and looks in the kernel whether it did. Nothing outlives the
demo: the hosts are namespaces (`envelope.lab`), the files are in a temporary folder, and a
watchdog ends what takes too long.
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
from envelope.lab.fixtures import KEYS, Stage
from envelope.lab.narration import Narration, StepFailed

HELD: Final = "5s"
WATCHDOG: Final = 55.0
_OWN_RULE: Final = ("-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
_FAMILIES: Final = ("iptables", "ip6tables")


class Ended(Exception):
    """A signal, the watchdog's included, wants the demo to end."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"this took longer than {WATCHDOG:g} s" if number == signal.SIGALRM
            else f"ended by {signal.Signals(number).name}"
        )
        self.status = 1 if number == signal.SIGALRM else 128 + number


class Demo:
    """The script."""

    def __init__(self, stage: Stage, tell: Narration) -> None:
        self.stage, self.tell = stage, tell

    def play(self) -> None:
        """Every step; `StepFailed` at the first that does not go as told."""
        before = self.open_to_everyone()
        self.service_starts()
        self.refused_without_token()
        self.refused_with_a_strangers_token()
        clients = [
            self.let_in(target, tool)
            for target, tool in zip(self.stage.targets, _FAMILIES, strict=True)
        ]
        self.refused_after_the_deadline(clients)
        self.service_stops(before)

    def open_to_everyone(self) -> str:
        """Without envelope; the rules as they are, for the end."""
        self.tell.step("Before: the host is open, and the client measures as it likes")
        for tool in _FAMILIES:
            # A rule of the host's own, to see that it comes through unharmed.
            self.stage.rules(tool, *_OWN_RULE)
        self.tell.quote("iptables -S", self.stage.rules("iptables", "-S"))
        self._expect("the measurement server", self.stage.start_measurement_server(), "serves")
        for target in self.stage.targets:
            self._measures(target)
        return self.stage.saved_rules()

    def service_starts(self) -> None:
        """The default-drop rules."""
        self.tell.step("The service starts on the host: shut, but for the service itself")
        options = self.stage.service_options(HELD)
        lines = textwrap.wrap(" ".join(options), 84, break_on_hyphens=False)
        self.tell.quote("twistd -n envelope \\", " \\\n".join(lines))
        self.stage.start_service(options)
        self.tell.quote("iptables -S", self.stage.rules("iptables", "-S"))

    def refused_without_token(self) -> None:
        """The firewall and the service both say no."""
        self.tell.step("Without a token, the firewall refuses the client")
        for target in self.stage.targets:
            self._refused(target)
        self._expect("the service", self.stage.knock(self.stage.targets[0], "")[1], "answers 401")

    def refused_with_a_strangers_token(self) -> None:
        """401, and the rules stay."""
        self.tell.step("With a token that a stranger signed, too")
        target, rules = self.stage.targets[0], self.stage.saved_rules()
        _, answer = self.stage.knock(target, self.stage.sign(KEYS[1], HELD))
        self._expect("the service", answer, "answers 401")
        self.tell.check(self.stage.saved_rules() == rules, "no rule has changed")
        self._refused(target)

    def let_in(self, target: str, tool: str) -> subprocess.Popen[str]:
        """A grant for one address of one family; the client that holds it."""
        client = self.stage.lab.client()
        source = client.address4 if tool == "iptables" else client.address6
        self.tell.step(f"With a good token, the client is let in as {source}")
        self._refused(target)
        holder, answer = self.stage.knock(target, self.stage.sign(KEYS[0], HELD))
        self._expect("the service", answer, "answers 101")
        grants = self.stage.rules(tool, "-S", "ENVELOPE-GRANTS")
        self.tell.quote(f"{tool} -S ENVELOPE-GRANTS", grants)
        self.tell.check(f"-s {source}/" in grants, f"the kernel lets {source} in, until its end")
        self._measures(target)
        return holder

    def refused_after_the_deadline(self, clients: list[subprocess.Popen[str]]) -> None:
        """The service closes, and the grants are gone by then."""
        self.tell.step(f"At the deadline, {HELD} later, both are shut out again")
        for client, target, tool in zip(clients, self.stage.targets, _FAMILIES, strict=True):
            self._expect("the service", self.stage.hear(client), "closes with 4000 deadline")
            grants = self.stage.rules(tool, "-S", "ENVELOPE-GRANTS")
            self.tell.quote(f"{tool} -S ENVELOPE-GRANTS", grants)
            self._refused(target)

    def service_stops(self, before: str) -> None:
        """Everything is as it was."""
        self.tell.step("The service stops (SIGTERM), and puts back what was there")
        status = self.stage.stop_service()
        self.tell.check(status == 0, f"the service ended with status {status}")
        self.tell.quote("iptables -S", self.stage.rules("iptables", "-S"))
        same = self.stage.saved_rules() == before
        self.tell.check(same, "iptables-save and ip6tables-save print what they did before")

    def _measures(self, target: str) -> None:
        could, words = self.stage.measure(target)
        self.tell.check(could, f"client measures {target}: {words}")

    def _refused(self, target: str) -> None:
        could, words = self.stage.measure(target)
        as_told = not could and words == "Connection refused"
        self.tell.check(as_told, f"client tries to measure {target}: {words}")

    def _expect(self, who: str, words: str, told: str) -> None:
        self.tell.check(words == told, f"{who} {words}")


@contextmanager
def _signals() -> Iterator[None]:
    """Turn signals and the watchdog into exceptions, so that everything is cleaned up."""

    def end(number: int, _: FrameType | None) -> None:
        for each in handled:
            # The first is enough: a second must not cut the cleaning short.
            signal.signal(each, signal.SIG_IGN)
        raise Ended(number)

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    earlier = [signal.signal(number, end) for number in handled]
    signal.setitimer(signal.ITIMER_REAL, WATCHDOG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip(handled, earlier, strict=True):
            signal.signal(number, handler)


def main() -> int:
    """Play it on standard output; the exit status."""
    tell = Narration(sys.stdout)
    try:
        with _signals():
            return _perform(tell)
    except Ended as end:
        problem, status = str(end), end.status
    except LabUnavailable as reason:
        problem, status = str(reason), 1
    sys.stderr.write(f"envelope demo: {problem}\n")
    return status


def _perform(tell: Narration) -> int:
    with tempfile.TemporaryDirectory(prefix="envelope-demo-") as folder, NetLab() as lab:
        tell.say("Two hosts, made of network namespaces, with a cable between them:")
        for host in (lab.host, lab.client()):
            tell.say(f"  {host.name:8}  {host.device}  {host.address4}  {host.address6}")
        stage = Stage(lab, Path(folder))
        try:
            Demo(stage, tell).play()
        except StepFailed as failure:
            stage.close()
            tell.step("Not as told")
            tell.say(str(failure))
            tell.quote("the service's log", stage.service_log())
            return 1
        finally:
            stage.close()
    tell.step("Every step went as told; the two hosts are gone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
