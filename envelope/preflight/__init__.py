"""What a start needs of this machine: what it refuses, and what `envelope check` fails.

`CHECKS` are the conditions that a start checks before it changes any rule. It logs their warnings,
and the first one that fails ends it. Everything else that can refuse a start it finds by doing it,
with the same functions that `envelope.preflight.examination` tries and takes back: it reads the
keys and the certificate, opens the ports, claims the network, and installs the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from twisted.logger import Logger

from envelope.config import Config
from envelope.preflight.findings import Finding, Level, StartError
from envelope.preflight.login import find_connections, find_login
from envelope.preflight.machine import find_clock, find_device, find_ipv6, find_open_files
from envelope.preflight.privileges import find_firewall_tool

_log = Logger(namespace="envelope")


@dataclass(frozen=True, slots=True)
class Check:
    """One condition. `find` brings it about if it can, and says what it found."""

    name: str
    find: Callable[[Config, Mapping[str, str]], Iterable[Finding]]


# All but "other connections", which reads the tables of sockets, take 1.5 ms together.
CHECKS: Final = (
    Check("the SSH login", find_login),
    Check("other connections", find_connections),
    Check("open files", find_open_files),
    Check("the firewall's tool", find_firewall_tool),
    Check("the device", find_device),
    Check("IPv6", find_ipv6),
    Check("the clock", find_clock),
)


def check(config: Config, environ: Mapping[str, str]) -> None:
    """Ensure every condition of a start, and log what an operator should look after.

    Raises `StartError` for the first condition that is not met.
    """
    for condition in CHECKS:
        for found in condition.find(config, environ):
            if found.level == Level.FAIL:
                raise StartError(str(found))
            if found.level == Level.WARN:
                _log.warn("{line}", event="start-warning", line=str(found))
