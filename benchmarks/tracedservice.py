"""The service, with the moments of each grant and revocation recorded: see `benchmarks.trace`.

Methods of the service note when they are called, and then do their work. On SIGUSR2 the
moments since the last time are written as JSON to the file that `BENCHMARK_TRACE` names. With
`BENCHMARK_ALONE` it is the service of `benchmarks.toolalone`.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from benchmarks import toolalone
from benchmarks.toolalone import ToolAlone
from envelope import twistd
from envelope.firewall import opentool
from envelope.firewall.kernelfirewall import KernelFirewall
from envelope.front.connection import Connection
from envelope.service import EnvelopeService
from envelope.twistd import Options

__all__ = ["Options", "makeService"]

# Each moment's name, and its seconds (of `time.perf_counter`).
_moments: list[tuple[str, float]] = []


def makeService(options: Options) -> EnvelopeService:
    """The service that twistd is to run."""
    alone = "BENCHMARK_ALONE" in os.environ
    firewall = ToolAlone if alone else KernelFirewall
    _note(firewall, "allow", "asked")
    _note(firewall, "revoke", "asked")
    _note(opentool._Child, "ask", "written", after=True)
    _note(opentool._Child, "acknowledge", "answered")
    _note(Connection, "switch", "told", after=True)
    _note(Connection, "close", "told", after=True)
    service = (toolalone if alone else twistd).makeService(options)
    signal.signal(signal.SIGUSR2, _write)
    return service


def _note(owner: Any, name: str, moment: str, after: bool = False) -> None:
    method = getattr(owner, name)

    @functools.wraps(method)
    def noting(*arguments: Any, **named: Any) -> Any:
        if not after:
            _moments.append((moment, time.perf_counter()))
        try:
            return method(*arguments, **named)
        finally:
            if after:
                _moments.append((moment, time.perf_counter()))

    setattr(owner, name, noting)


def _write(*_: object) -> None:
    path = Path(os.environ["BENCHMARK_TRACE"])
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(_moments))
    draft.rename(path)
    _moments.clear()
