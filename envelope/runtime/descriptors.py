"""How many files the process may have open, and whether that is enough (getrlimit(2))."""

from __future__ import annotations

import resource
from typing import Final, Protocol

from envelope.config import Config

# For the log, the reactor, the sockets that listen, the admin endpoints' connections (64) and the
# firewall's tools (three pipes each).
RESERVE: Final = 128


class TooFewDescriptors(Exception):
    """The limits cannot be kept; the text is one line for the operator."""


class IResource(Protocol):
    """What is used of the module `resource`."""

    RLIMIT_NOFILE: int
    RLIM_INFINITY: int

    def getrlimit(self, which: int, /) -> tuple[int, int]:
        """The soft and the hard limit."""

    def setrlimit(self, which: int, limits: tuple[int, int], /) -> None:
        """Set both."""


def needed(config: Config) -> int:
    """The most descriptors that a service with these settings may use at once."""
    sessions = config.max_clients + config.monitoring_slots
    return sessions + config.max_connections + RESERVE


def ensure(config: Config, system: IResource = resource) -> None:
    """Allow as many as are needed; raise `TooFewDescriptors` if the machine does not let us.

    Sessions could otherwise be cut off by a flood of connections that are none.
    """
    wanted = needed(config)
    soft, hard = system.getrlimit(system.RLIMIT_NOFILE)
    if soft == system.RLIM_INFINITY or soft >= wanted:
        return
    if hard != system.RLIM_INFINITY:
        hard = max(hard, wanted)  # which only a privileged process may raise
    try:
        system.setrlimit(system.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        raise TooFewDescriptors(
            f"--max-clients={config.max_clients} and --max-connections={config.max_connections} "
            f"need {wanted} open files, and {system.getrlimit(system.RLIMIT_NOFILE)[1]} are "
            "allowed: raise that limit (ulimit -n, LimitNOFILE=), or lower these"
        ) from None
