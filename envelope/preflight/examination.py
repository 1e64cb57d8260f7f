"""Every condition of a start, tried for real and undone, for `envelope check`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from envelope.config import Config
from envelope.firewall.claim import QUEUE, Claim, ClaimTaken, ClaimUnavailable
from envelope.firewall.errors import ToolFailed
from envelope.firewall.process import one_line, run
from envelope.preflight import CHECKS
from envelope.preflight.files import (
    find_authorities,
    find_certificate,
    find_key_files,
    find_published_keys,
)
from envelope.preflight.findings import Finding, Level, fail, ok, warn
from envelope.preflight.ports import find_control, find_ports
from envelope.preflight.privileges import find_capabilities
from envelope.preflight.tools import find_tools

_READ: Final = (find_capabilities, find_key_files, find_certificate, find_authorities)
# Seconds; a trial with 10,000 rules of others takes some 3 s.
_PATIENCE: Final = 60.0
_TRIAL: Final = (sys.executable, "-P", "-m", "envelope.preflight.trial")


async def examine(
    reactor: Any, config: Config, argv: Sequence[str], environ: Mapping[str, str]
) -> AsyncIterator[Finding]:
    """All findings, one after the other; `config` is what `argv` and `environ` say."""
    for check in CHECKS:
        for each in check.find(config, environ):
            yield each
    for find in _READ:
        for each in find(config, environ):
            yield each
    running = find_other(config)
    if running is not None:
        yield running
    for each in await find_tools(reactor, config, environ):
        yield each
    is_running = running is not None and running.level == Level.FAIL
    for each in await find_ports(reactor, config, is_running):
        yield each
    for each in find_control(config, environ):
        yield each
    for each in await find_published_keys(reactor, config):
        yield each
    if config.firewall != "none":
        for each in await try_firewall(reactor, argv, environ):
            yield each


def find_other(config: Config, proc: Path = Path("/proc/self/net")) -> Finding | None:
    """Fail when another envelope guards this network; None when none is to guard it."""
    if config.firewall == "none":
        return None
    taken = fail("another envelope guards this network",
                 "stop it first: a start is refused while it runs")
    free = ok("no other envelope guards this network")
    try:
        lines = (proc / "netfilter/nfnetlink_queue").read_text().splitlines()
    except OSError:
        pass
    else:
        return taken if any(int(line.split()[0]) == QUEUE for line in lines) else free
    # Asked for only where the list cannot be read: it would refuse a start in the same moment.
    try:
        Claim().release()
    except ClaimTaken:
        return taken
    except ClaimUnavailable as error:
        return warn(f"whether another envelope guards this network cannot be told: {error}",
                    "make sure that none does")
    return free


async def try_firewall(
    reactor: Any, argv: Sequence[str], environ: Mapping[str, str],
    program: Sequence[str] = _TRIAL, patience: float = _PATIENCE,
) -> list[Finding]:
    """Run `program`, a trial, with the service's options; warn when it fails or takes too long.

    It is told this process's id, to end with it. `patience` is in seconds.
    """
    try:
        call = (*program, str(os.getpid()), *argv)
        done = await run(reactor, call, patience, environ=environ)
        return [Finding(Level(level), what, do) for level, what, do in json.loads(done.output)]
    except ToolFailed as error:
        why = str(error)
    except ValueError:
        why = one_line(done.errors) or "it ended without a result"
    return [warn(f"the kernel's features and rules of others could not be tried: {why}",
                 "please report this")]
