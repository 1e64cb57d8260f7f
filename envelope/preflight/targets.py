"""The ports that a trial sends packets to: the service's own, and some that a grant opens. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, TypeAlias

from envelope.addresses import PortRange
from envelope.config import Config
from envelope.preflight.packets import Target
from envelope.preflight.ports import listeners

Port: TypeAlias = tuple[Literal["tcp", "udp"], int]
# Ports of each protocol that something listens on, or that are the ends of what a grant opens; and
# those that rules of others name.
_MOST: Final = 8
_MOST_NAMED: Final = 16
# Tried when a grant opens every port, besides those that something listens on.
_ANY_PORT: Final = 50_505
_PROTOCOLS: Final[tuple[Literal["tcp", "udp"], ...]] = ("tcp", "udp")
_PORTS: Final = re.compile(
    r"(?:dports? (?:!= )?(?:vmap |map )?|elements = )(\{[^}]*\}?|[\d:,-]+)")
_RANGE: Final = re.compile(r"(?<![\w.:/])(\d{1,5})(?:[:-](\d{1,5}))?(?![\w.:/])")
_REFUSES: Final = re.compile(r"(?i)\b(?:drop|reject)\b")


def named_ports(texts: Iterable[str]) -> list[Port]:
    """The ports that rules name, each once; those of rules that drop or reject first.

    `texts` are rules as iptables-save and nft print them. A range names its ends. Last comes the
    port after each range, over which other rules decide. A number that is no port costs a packet.
    """
    # nft breaks the elements of a set into lines.
    lines = [line for text in texts for line in re.sub(r",\n\s*", ", ", text).splitlines()]
    lines.sort(key=lambda line: _REFUSES.search(line) is None)
    ranges = [each for line in lines for each in _ranges_in(line)]
    named = [(protocol, port) for protocol, *ends in ranges for port in ends]
    named += [(protocol, last + 1) for protocol, _, last in ranges]
    return [each for each in dict.fromkeys(named) if 0 < each[1] < 1 << 16]


def _ranges_in(line: str) -> Iterator[tuple[Literal["tcp", "udp"], int, int]]:
    named = [each for each in _PROTOCOLS if re.search(rf"\b{each}\b", line)] or _PROTOCOLS
    for numbers in _PORTS.findall(line):
        for first, last in _RANGE.findall(numbers.replace(",", " ")):
            for protocol in named:
                yield protocol, int(first), int(last or first)


def grant_targets(
    config: Config, serving: Iterable[Port], versions: Sequence[Literal[4, 6]],
    named: Iterable[Port] = (),
) -> list[Target]:
    """Ports that a grant opens; of those, first the ones that are `serving` now.

    `named` are ports that rules of others name.
    """
    ports_of_all = [each for service in config.services for each in service.ports]
    # Open to everyone while there is a grant.
    ports_of_all += [PortRange("tcp", port, port) for port in config.proxy_port]
    ranges = [*dict.fromkeys(ports_of_all)]
    # The last service has the ports of all; none are all ports.
    everything = not config.services[-1].ports
    own = {spec.port for _, spec in listeners(config)}
    found: list[Port] = []
    for protocol in _PROTOCOLS:
        served = [port for kind, port in serving if kind == protocol]
        granted = [each for each in ranges if each.protocol == protocol]
        ports = [port for port in served if any(each.covers(protocol, port) for each in granted)]
        ports += [port for each in granted for port in (each.first, each.last)]
        ruled = [
            port for kind, port in named if kind == protocol
            and (everything or any(each.covers(protocol, port) for each in granted))
        ]
        if everything:
            ports += served
            ruled = [_ANY_PORT, *ruled]
        closed = own if protocol == "tcp" else set()
        tried = _first(_MOST, ports, config, protocol, closed)
        tried += _first(_MOST_NAMED, ruled, config, protocol, closed | {*tried})
        found += [(protocol, port) for port in tried]
    return [Target(version, protocol, port) for version in versions for protocol, port in found]


def _first(
    number: int, ports: Iterable[int], config: Config, protocol: str, without: set[int | None]
) -> list[int]:
    """The first of `ports`, each once, that are not open to everyone and not `without`."""
    return [
        port for port in dict.fromkeys(ports) if port not in without
        and not any(each.covers(protocol, port) for each in config.allow)
    ][:number]


def service_targets(config: Config, versions: Sequence[Literal[4, 6]]) -> list[Target]:
    """The ports at which clients ask for a grant."""
    ports = {spec.port for spec in config.listen if spec.port and not spec.local}
    return [Target(version, "tcp", port) for version in versions for port in sorted(ports)]

