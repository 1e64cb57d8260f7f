"""Who shares which network, and how long that network has to stay open. Pure.

Sessions of one network share its grant: it ends with the last of them, and it lasts as long as
the longest of them may.
"""

from __future__ import annotations

from envelope.addresses import Network
from envelope.deadlines import Latest


class Ledger:
    """Counts the holders of each open network; times are seconds of whatever clock is used."""

    def __init__(self) -> None:
        self._held: dict[Network, Latest[float]] = {}
        self._network_of: dict[str, Network] = {}

    def enter(self, holder: str, network: Network, until: float) -> float:
        """Note that `holder` uses `network` until then; return the network's own end."""
        if holder in self._network_of:
            raise ValueError(f"{holder} already holds {self._network_of[holder]}")
        self._network_of[holder] = network
        self._held.setdefault(network, Latest()).put(holder, until)
        return self.end_of(network)

    def leave(self, holder: str) -> tuple[Network, float | None]:
        """Strike `holder` out; return its network and that network's end, None when unused."""
        network = self._network_of.pop(holder)
        held = self._held[network]
        held.drop(holder)
        if not held:
            del self._held[network]
            return network, None
        return network, held.end

    def end_of(self, network: Network) -> float:
        """When `network` may be shut at last; raise `KeyError` when nobody holds it."""
        end = self._held[network].end
        assert end is not None, "a network without holders is not kept"
        return end

    def holders_of(self, network: Network) -> frozenset[str]:
        """Who shares `network` now."""
        return frozenset(self._held.get(network, ()))

    def open_networks(self) -> dict[Network, float]:
        """Every held network with its end."""
        return {network: self.end_of(network) for network in self._held}
