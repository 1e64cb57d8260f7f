"""The main job, shown for real: two hosts, the service through twistd, iptables, TLS, a token.

A script in seven steps; each says what should happen and looks whether it did, in the kernel's
own rules. Nothing outlives it: the hosts are namespaces (`envelope.netlab`), the files are in a
temporary folder, and a watchdog ends what takes too long.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from envelope.admission import ACCESS_PATH
from envelope.narration import Narration, StepFailed
from envelope.netlab import Host, NetLab

PORT, MEASUREMENT_PORT = "8880", "5201"
MACHINE, SUBJECT = "host.example", "measurement"
HELD = "5s"
WATCHDOG: Final = 55
PATIENCE: Final = 10.0


class Interrupted(Exception):
    """A signal asked us to end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.status = 128 + number


class Demo:
    """The stage: a lab, files, and whatever runs; `play` is the script."""

    def __init__(self, lab: NetLab, folder: Path, tell: Narration) -> None:
        self.lab, self.folder, self.tell = lab, folder, tell
        self.client = lab.client()
        self.targets = (lab.host.address4, lab.host.address6)
        self._stack = ExitStack()

    def play(self) -> None:
        """Every step; `StepFailed` at the first that does not go as told."""
        with self._stack:
            self._prepare()
            before = self._open_to_everyone()
            service = self._start_service()
            self._refused_without_token()
            self._refused_with_bad_token()
            held = [self._let_in(target) for target in self.targets]
            self._refused_after_deadline(held)
            self._stop_service(service, before)

    # The steps

    def _prepare(self) -> None:
        self.tell.say("host    eth0  " + "  ".join(self.targets))
        self.tell.say(f"client  eth0  {self.client.address4}  {self.client.address6}")
        write_certificate(self.folder, self.targets)
        for kid in ("demo", "stranger"):
            self._envelope("keygen", f"--kid={kid}", f"--out={self.folder}")
        for tool in ("iptables", "ip6tables"):
            # A rule of the host's own, to see whether it comes through unharmed.
            self._host("-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT", tool=tool)
        server = self._start(self.lab.host, standin("serve", MEASUREMENT_PORT))
        self._expect(server, "serving")

    def _open_to_everyone(self) -> str:
        self.tell.step("Before: whoever comes can measure")
        self.tell.quote("iptables -S", self._host("-S"))
        for target in self.targets:
            self._measures(target)
        return self._saved()

    def _start_service(self) -> subprocess.Popen[str]:
        self.tell.step("The service starts, and shuts the host")
        folder = self.folder
        command = [
            "twistd", "-n", "--pidfile=", "envelope", f"--listen=:{PORT}", "--device=eth0",
            f"--cert={folder / 'cert.pem'}", f"--key={folder / 'key.pem'}",
            f"--verify-key={folder / 'jwk_sig_EdDSA_demo.pub'}", f"--machine={MACHINE}",
            f"--subject={SUBJECT}", f"--timeout={HELD}", "--max-clients=2", "--admin=none",
        ]
        self.tell.say("$ " + " ".join(command).replace(f"{folder}/", ""))
        log = self._stack.enter_context((folder / "log").open("w"))
        service = self._start(
            self.lab.host, [sys.executable, script("twistd"), *command[1:]],
            stderr=subprocess.STDOUT, cwd=folder, start_new_session=True,
        )
        assert service.stdout is not None
        for line in service.stdout:
            log.write(line)
            if line.rstrip().endswith("ready"):
                break
        else:
            log.flush()
            raise StepFailed("the service did not start:\n" + (folder / "log").read_text())
        self.tell.quote("iptables -S", self._host("-S"))
        return service

    def _refused_without_token(self) -> None:
        self.tell.step("Without a token: the firewall refuses the client")
        for target in self.targets:
            self._refused(target)

    def _refused_with_bad_token(self) -> None:
        self.tell.step("With a token that a stranger signed: 401, and no rule changes")
        rules = self._saved()
        client = self._knock(self.targets[0], self._token("stranger"))
        self._expect(client, "answer 401")
        self.tell.check(self._saved() == rules, "the rules are the same as before")
        self._refused(self.targets[0])

    def _let_in(self, target: str) -> subprocess.Popen[str]:
        version, tool, source = 4, "iptables", self.client.address4
        if ip_address(target).version == 6:
            version, tool, source = 6, "ip6tables", self.client.address6
        self.tell.step(f"With a good token, over IPv{version}: let in")
        self._refused(target)
        client = self._knock(target, self._token("demo"))
        self._expect(client, "answer 101")
        rules = self._host("-S", "ENVELOPE-GRANTS", tool=tool)
        self.tell.quote(f"{tool} -S ENVELOPE-GRANTS", rules)
        self.tell.check(f"-s {source}/" in rules, f"the kernel has a grant for {source}")
        self._measures(target)
        return client

    def _refused_after_deadline(self, held: list[subprocess.Popen[str]]) -> None:
        self.tell.step(f"After {HELD}: the deadline; shut out again")
        for client, target in zip(held, self.targets, strict=True):
            self._expect(client, "closed 4000 deadline")
            self._refused(target)
        self.tell.quote("iptables -S ENVELOPE-GRANTS", self._host("-S", "ENVELOPE-GRANTS"))

    def _stop_service(self, service: subprocess.Popen[str], before: str) -> None:
        self.tell.step("The service stops (SIGTERM), and puts back what was there")
        service.terminate()
        service.communicate(timeout=PATIENCE)
        self.tell.check(service.returncode == 0, f"it ended with status {service.returncode}")
        self.tell.quote("iptables -S", self._host("-S"))
        self.tell.check(self._saved() == before, "iptables-save and ip6tables-save are as before")

    # What the steps are made of

    def _measures(self, target: str) -> None:
        done = self.client.run(standin("measure", target, MEASUREMENT_PORT))
        self.tell.check(done.returncode == 0, f"client measures {target}: {outcome(done)}")

    def _refused(self, target: str) -> None:
        done = self.client.run(standin("measure", target, MEASUREMENT_PORT))
        finding = f"client tries to measure {target}: {outcome(done)}"
        self.tell.check(outcome(done) == "Connection refused", finding)

    def _token(self, kid: str) -> str:
        key = self.folder / f"jwk_sig_EdDSA_{kid}"
        return self._envelope(
            "sign", f"--private={key}", f"--machine={MACHINE}", f"--subject={SUBJECT}",
            f"--expires={HELD}",
        )

    def _knock(self, target: str, token: str) -> subprocess.Popen[str]:
        command = standin("hold", target, PORT, self.folder / "cert.pem", ACCESS_PATH)
        client = self._start(self.client, command, stdin=subprocess.PIPE)
        assert client.stdin is not None
        client.stdin.write(token)
        client.stdin.close()
        return client

    def _expect(self, process: subprocess.Popen[str], line: str) -> None:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        name = "measurement server" if line == "serving" else "client"
        self.tell.check(said == line, f"{name}: {said or 'ended without a word'}")

    def _host(self, *arguments: str, tool: str = "iptables") -> str:
        return self._output(self.lab.host.run([tool, *arguments]))

    def _saved(self) -> str:
        saved = self._host(tool="iptables-save") + self._host(tool="ip6tables-save")
        # Comments hold the time, and counters count.
        return re.sub(r"^#.*\n| \[\d+:\d+\]", "", saved, flags=re.MULTILINE)

    def _envelope(self, *arguments: str) -> str:
        command = [sys.executable, script("envelope"), *arguments]
        return self._output(
            subprocess.run(command, capture_output=True, text=True)  # noqa: S603
        ).strip()

    def _output(self, done: subprocess.CompletedProcess[str]) -> str:
        if done.returncode:
            raise StepFailed(f"{done.args[-1]} failed: {done.stderr.strip()}")
        return done.stdout

    def _start(self, host: Host, command: list[str | Path], **kwargs: object) -> subprocess.Popen[str]:
        return host.popen(command, stdout=subprocess.PIPE, text=True, **kwargs)
