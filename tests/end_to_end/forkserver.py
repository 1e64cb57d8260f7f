"""Starts services by fork, fast enough to kill a hundred of them (see `forkserverprogram`)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.end_to_end.harness import HERE, Lines, Rig


class ForkedService(Lines):
    """A running twistd that was forked; its output is read line by line."""

    def __init__(self, server: ForkServer, pid: int, output: Any) -> None:
        super().__init__(SimpleNamespace(stdout=output))  # type: ignore[arg-type]
        self.pid = pid
        self._server = server
        self._output = output

    def children(self) -> list[int]:
        """The process ids of its children: the firewall tools."""
        found: list[int] = []
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
        return found

    def kill(self, children_too: bool) -> None:
        """Send SIGKILL to it, and to its children with `children_too`."""
        victims = [self.pid, *(self.children() if children_too else ())]
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM to it."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        """Wait for its end; the exit status, negative for a signal."""
        status = self._server.ask({"wait": self.pid})
        self.reader.join()
        self._output.close()
        self._server.running.remove(self)
        return status


class ForkServer:
    """A program on the rig's host that starts services; `close` kills all of them."""

    def __init__(self, rig: Rig) -> None:
        self._folder = rig.folder
        self._program = rig.lab.host.popen(
            [sys.executable, HERE / "forkserverprogram.py"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, bufsize=1, cwd=rig.folder,
            env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
        )
        self._lines = Lines(self._program)
        self.running: list[ForkedService] = []
        try:
            assert self._lines.next() == "up"
        except BaseException:
            self.close()
            raise

    def ask(self, order: dict[str, Any]) -> int:
        """Send the program one order; returns its answer."""
        assert self._program.stdin is not None
        self._program.stdin.write(json.dumps(order) + "\n")
        answer = self._lines.next()
        assert answer is not None, "the fork server died"
        return int(answer)

    def start(self, *options: str) -> ForkedService:
        """Start twistd with exactly these options, and do not wait."""
        path = self._folder / "output"
        os.mkfifo(path)
        pid = self.ask({"start": ["-n", "--pidfile=", "envelope", *options], "to": str(path)})
        output = path.open()
        path.unlink()
        fork = ForkedService(self, pid, output)
        self.running.append(fork)
        return fork

    def close(self) -> None:
        """Kill the services that still run, and the program."""
        for fork in list(self.running):
            fork.kill(children_too=True)
            fork.wait()
        self._program.kill()
        self._program.wait()
        self._lines.reader.join()
        for pipe in (self._program.stdin, self._program.stdout):
            pipe.close()
