"""Which networks hold which grants, and what has to be cut when one of them ends. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from envelope.addresses import Network, PortRange
from envelope.config.subjects import Service
from envelope.firewall import GrantId, Traffic
from envelope.firewall.kernel import network_text_of


@dataclass(frozen=True, slots=True)
class Cut:
    """What ends with a grant.

    `still_open` are the ports that other grants of its network open. `others` says whether there
    are more grants of its family. With `unused`, nothing can have been opened under it.
    """

    network: Network
    still_open: tuple[PortRange, ...]
    others: bool
    unused: bool


class Granted:
    """The grants that callers have asked for and not revoked; `proxies`: see `--proxy-port`."""

    def __init__(self, services: Sequence[Service], proxies: bool) -> None:
        self._services = services
        self._proxies = proxies
        # By the network's text, since its hash is made in Python: the network, and the services of
        # its grants, a bit each. A set would take 200 bytes.
        self._held: dict[str, tuple[Network, int]] = {}
        # Networks that may have flows which were spared for the sake of another grant.
        self._spared: set[str] = set()

    @property
    def networks(self) -> list[Network]:
        """The networks with grants."""
        return [network for network, _ in self._held.values()]

    def add(self, grant: GrantId) -> bool:
        """Add a grant; return whether it is new."""
        text = network_text_of(grant.key)
        network, held = self._held.get(text, (grant.network, 0))
        self._held[text] = network, held | 1 << grant.service
        return not held >> grant.service & 1

    def remove(self, grant: GrantId) -> None:
        """Remove a grant, if it is there."""
        text = network_text_of(grant.key)
        network, held = self._held.pop(text, (grant.network, 0))
        if held := held & ~(1 << grant.service):
            self._held[text] = network, held

    def ended(self, grant: GrantId, traffic: Traffic | None) -> Cut | None:
        """What is to be cut now that the kernel has ended a grant, which let in `traffic`.

        None when its network has the grant again, or another one that opens everything, and when
        nothing can have been opened under it.
        """
        network, service, text = grant.network, grant.service, network_text_of(grant.key)
        unused = traffic is not None and traffic.unused and text not in self._spared
        _, held = self._held.get(text, (network, 0))
        if held and not unused:
            self._spared.add(text)
        elif not held:
            self._spared.discard(text)
        if unused and not self._proxies:
            return None
        ports = [
            each.ports for number, each in enumerate(self._services) if held >> number & 1
        ]
        if held >> service & 1 or not all(ports):
            return None
        others = any(each.version == network.version for each, _ in self._held.values())
        return Cut(network, tuple(each for part in ports for each in part), others, unused)
