"""The ports that a trial sends packets to: the service's own, and some that a grant opens. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from envelope.config import Config
from envelope.preflight.packets import Target
from envelope.preflight.ports import listeners

# Ports of each protocol. A rule of others that drops one port more than these is not found.
_MOST: Final = 8
# Tried when a grant opens every port, besides those that something listens on.
_ANY_PORT: Final = 50_505
_PROTOCOLS: Final[tuple[Literal["tcp", "udp"], ...]] = ("tcp", "udp")


def grant_targets(
    config: Config, serving: Iterable[tuple[Literal["tcp", "udp"], int]],
    versions: Sequence[Literal[4, 6]],
) -> list[Target]:
    """Ports that a grant opens; of those, first the ones that are `serving` now."""
    ranges = [*dict.fromkeys(each for service in config.services for each in service.ports)]
    # The last service has the ports of all; none are all ports.
    everything = not config.services[-1].ports
    own = {spec.port for _, spec in listeners(config)}
    found: list[tuple[Literal["tcp", "udp"], int]] = []
    for protocol in _PROTOCOLS:
        served = [port for kind, port in serving if kind == protocol]
        ports = [port for port in served if any(each.covers(protocol, port) for each in ranges)]
        ports += [
            port for each in ranges if each.protocol == protocol
            for port in (each.first, each.last)
        ]
        if everything:
            ports += [*served, _ANY_PORT]
        ports = [
            port for port in dict.fromkeys(ports)
            if not (protocol == "tcp" and port in own)
            and not any(each.covers(protocol, port) for each in config.allow)
        ]
        found += [(protocol, port) for port in ports[:_MOST]]
    return [Target(version, protocol, port) for version in versions for protocol, port in found]


def service_targets(config: Config, versions: Sequence[Literal[4, 6]]) -> list[Target]:
    """The ports at which clients ask for a grant."""
    ports = {spec.port for spec in config.listen if spec.port and not spec.local}
    return [Target(version, "tcp", port) for version in versions for port in sorted(ports)]

