"""The limit of open files (getrlimit(2)): whether it is enough, and raising it."""

from __future__ import annotations

import resource
from typing import Final, Protocol

from envelope.config import Config

# For the log, the reactor, the listening sockets, admin connections (64), and the firewall's tools
# (three pipes each).
RESERVE: Final = 128


class TooFewDescriptors(Exception):
    """Fewer open files are allowed than the options need; the text is one line for the operator."""


class IResource(Protocol):
    """The part of the module `resource` that is used."""

    RLIMIT_NOFILE: int
    RLIM_INFINITY: int

    def getrlimit(self, which: int, /) -> tuple[int, int]:
        """Return the soft and the hard limit."""

    def setrlimit(self, which: int, limits: tuple[int, int], /) -> None:
        """Set both limits."""


def needed(config: Config) -> int:
    """The most descriptors that a service with these options uses at once."""
    sessions = config.max_clients + config.monitoring_slots
    return sessions + config.max_connections + RESERVE


def ensure(config: Config, system: IResource = resource) -> None:
    """Raise the limit to what is needed; raise `TooFewDescriptors` if that is not allowed.

    Otherwise a flood of connections without sessions could end sessions.
    """
    wanted = needed(config)
    soft, hard = system.getrlimit(system.RLIMIT_NOFILE)
    if soft == system.RLIM_INFINITY or soft >= wanted:
        return
    if hard != system.RLIM_INFINITY:
        hard = max(hard, wanted)  # only a privileged process may raise it
    try:
        system.setrlimit(system.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        raise TooFewDescriptors(
            f"--max-clients={config.max_clients} and --max-connections={config.max_connections} "
            f"need {wanted} open files, and {system.getrlimit(system.RLIMIT_NOFILE)[1]} are "
            "allowed: raise that limit (ulimit -n, LimitNOFILE=), or lower these"
        ) from None
