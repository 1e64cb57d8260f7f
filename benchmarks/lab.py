"""Two hosts for one variant: the service on one, clients with 65,000 addresses on the other."""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from benchmarks.credentials import MACHINE, SUBJECT, write_credentials
from benchmarks.processes import cpu_seconds, delivered, resident_kilobytes
from benchmarks.variants import Variant
from envelope.lab import NetLab

REPOSITORY = Path(__file__).parents[1]
PORT = 8880
START_PATIENCE = 60.0
ANSWER_PATIENCE = 300.0
RECORD_PATIENCE = 10.0
# Connection tracking forgets closed sockets after seconds instead of minutes.
_SYSCTLS = (
    "net/ipv4/icmp_ratelimit=0",
    "net/netfilter/nf_conntrack_tcp_timeout_time_wait=5",
    "net/netfilter/nf_conntrack_tcp_timeout_close=5",
    "net/ipv4/neigh/default/gc_thresh3=8192",
)


class CannotRun(Exception):
    """This variant cannot run here; the text is the service's own error line."""


class BenchLab:
    """A running service and its clients; a context manager that ends both.

    `more` are further options of the service, `twistd` options of twistd. `checkout` is the tree
    that the service is run from, with that tree's `.venv` unless it is this one. Raises
    `CannotRun`.
    """

    def __init__(
        self, variant: Variant, *more: str, twistd: tuple[str, ...] = (),
        env: dict[str, str] | None = None, checkout: Path = REPOSITORY,
    ) -> None:
        self.variant = variant
        self._checkout = checkout
        self._more = more
        self._twistd = twistd
        self._env = env or {}
        self._stack = ExitStack()

    def __enter__(self) -> BenchLab:
        raise_limit()
        with self._stack:
            self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
            self.net = self._stack.enter_context(NetLab())
            self._make_addresses()
            write_credentials(self.folder)
            self._start_guarded()
            self.service = self._start_service()
            self._start_load()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._stack.close()

    def stop(self) -> float:
        """Send SIGTERM and wait for the end; returns the seconds that it took."""
        began = time.perf_counter()
        if self.service.poll() is None:
            self.service.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.service.wait(60)
        return time.perf_counter() - began

    # -- the clients -----------------------------------------------------------------------

    def do(self, what: str, **how: Any) -> dict[str, Any]:
        """Send the clients an order (`benchmarks.client.program`), and return their figures.

        `cpu` is added: CPU seconds of the service and its children meanwhile.
        """
        before = self.cpu()
        self._load.stdin.write(json.dumps({"do": what, **how}) + "\n")
        self._load.stdin.flush()
        if not select.select([self._load.stdout], [], [], ANSWER_PATIENCE)[0]:
            raise RuntimeError(f"{self.variant.name}: {what} did not end")
        answer: dict[str, Any] = json.loads(self._load.stdout.readline() or "{}")
        if "error" in answer or not answer:
            raise RuntimeError(f"{self.variant.name}: {what}: {answer.get('error')}")
        return {**answer, "cpu": self.cpu() - before}

    def packets_per_second(self, seconds: float) -> float:
        """How many packets a second of a flood by the last client pass the rules."""
        before = delivered(self.net.host.pid)
        answer = self.do("flood", seconds=seconds)
        return (delivered(self.net.host.pid) - before) / float(answer["seconds"])

    # -- the service -----------------------------------------------------------------------

    def cpu(self) -> float:
        """CPU seconds of the service and its children so far."""
        return cpu_seconds(self.service.pid)

    def resident(self) -> int:
        """Resident memory of the service, in 1,024 bytes."""
        return resident_kilobytes(self.service.pid)

    def grants(self) -> int:
        """The number of grants in the kernel's rules."""
        if not self.variant.list_grants:
            return 0
        listed = self.net.host.run(self.variant.list_grants, check=True).stdout
        # Prefixes that lead to further chains are no grants.
        return len(re.findall(r"10\.9\.\d+\.\d+(?!/(?:[12]?\d|3[01])\b|[\d.])", listed))

    def metric(self, name: str) -> float:
        """The sum of all samples of a metric."""
        script = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())"
        text = self.net.host.run(
            [sys.executable, "-c", script, "http://127.0.0.1:9990/metrics"], check=True
        ).stdout
        return sum(
            float(line.rpartition(" ")[2]) for line in text.splitlines()
            if line.replace("{", " ").partition(" ")[0] == name
        )

    def recorded(self, path: Path) -> Any:
        """What the service has recorded since the last call; on SIGUSR2 it writes it to `path`."""
        self.service.send_signal(signal.SIGUSR2)
        until = time.monotonic() + RECORD_PATIENCE
        while not path.exists():
            if time.monotonic() > until:
                raise RuntimeError(f"{self.variant.name}: the service does not write {path}")
            time.sleep(0.01)
        found = json.loads(path.read_text())
        path.unlink()
        return found

    # -- parts -------------------------------------------------------------------------------

    def _make_addresses(self) -> None:
        self.net.client().ip("route add local 10.9.0.0/16 dev lo")
        self.net.host.ip(f"route add 10.9.0.0/16 via {self.net.client().address4}")
        for host in (self.net.host, self.net.client()):
            for setting in _SYSCTLS:
                name, _, value = setting.partition("=")
                # Some do not exist without conntrack, and none can be set in a container.
                host.run(["sh", "-c", f"echo {value} > /proc/sys/{name}"])

    def _start_guarded(self) -> None:
        guarded = self.net.host.popen(
            [sys.executable, "-m", "benchmarks.client.guarded"], cwd=REPOSITORY,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        self._stack.callback(guarded.communicate)
        assert guarded.stdout is not None
        self._echo, self._sink = guarded.stdout.readline().split()

    def _start_service(self) -> subprocess.Popen[str]:
        self.log = self.folder / "log"
        python = Path(sys.executable)
        if self._checkout != REPOSITORY:
            python = self._checkout / ".venv" / "bin" / "python"
        command = [
            python, python.with_name("twistd"), "-n", "--pidfile=",
            f"--logfile={self.log}", *self._twistd, self.variant.plugin, *self._options(),
        ]
        path = os.pathsep.join(filter(None, (
            str(self._checkout), str(self._checkout / "benchmarks" / "plugins"),
            os.environ.get("PYTHONPATH", "")
        )))
        env = {name: value for name, value in os.environ.items()
               if not name.startswith("ENVELOPE_") and name != "SSH_CONNECTION"}
        began = time.perf_counter()
        with (self.folder / "errors").open("w") as errors:
            service: subprocess.Popen[str] = self.net.host.popen(
                command, cwd=self.folder, stdout=errors, stderr=errors, text=True,
                env={**env, "PYTHONPATH": path, **self._env},
            )
        self._wait_until_ready(service)
        # Seconds from the command to the line `ready`.
        self.ready_after = time.perf_counter() - began
        return service

    def _wait_until_ready(self, service: subprocess.Popen[str]) -> None:
        until = time.monotonic() + START_PATIENCE
        while time.monotonic() < until:
            if self.log.exists() and "#info] ready" in self.log.read_text():
                return
            if service.poll() is not None:
                break
            time.sleep(0.01)
        service.kill()
        service.wait()
        said = (self.folder / "errors").read_text().strip().splitlines()
        raise CannotRun(said[-1] if said else "the service did not start")

    def _options(self) -> list[str]:
        return [
            f"--listen=:{PORT}", f"--device={self.net.device}",
            f"--cert={self.folder / 'cert.pem'}", f"--key={self.folder / 'key.pem'}",
            f"--verify-key={self.folder / 'token.pub'}", f"--machine={MACHINE}",
            f"--subject={SUBJECT}", "--max-clients=12000", "--timeout=1h",
            *self.variant.options, *self._more,
        ]

    def _start_load(self) -> None:
        self._load: Any = self.net.client().popen(
            [sys.executable, "-m", "benchmarks.client.program", self.net.host.address4, str(PORT),
             self._echo, self._sink, self.folder / "tokens"],
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        self._stack.callback(self._load.communicate)


def raise_limit() -> None:
    """Raise the limit of descriptors, which children inherit, to 65,536 or the maximum."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        # Only root may raise the hard limit.
        most = max(most, 65536)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
