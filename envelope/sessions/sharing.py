"""Which sessions share a network's grant, and when that grant ends. Pure.

Sessions of one network share its grant: it ends with the last of them, and its end is the latest of
their deadlines.
"""

from __future__ import annotations

from envelope.addresses import Network
from envelope.deadlines import LatestDeadline


class SharedGrants:
    """The deadlines of the sessions of each network, in seconds of any one clock."""

    def __init__(self) -> None:
        self._deadlines: dict[Network, LatestDeadline] = {}
        self._network_of: dict[str, Network] = {}

    def add(self, session_id: str, network: Network, deadline: float) -> float:
        """Add a session of `network`; return the end of the network's grant.

        Raises `ValueError` if the session was added before.
        """
        if session_id in self._network_of:
            raise ValueError(f"{session_id} already shares {self._network_of[session_id]}")
        self._network_of[session_id] = network
        deadlines = self._deadlines.setdefault(network, LatestDeadline())
        deadlines.put(session_id, deadline)
        latest = deadlines.latest
        assert latest is not None, "a deadline was just put"
        return latest

    def remove(self, session_id: str) -> tuple[Network, float | None]:
        """Remove a session; return its network and the end of that network's grant.

        The end is None when no session is left. Raises `KeyError` for an unknown session.
        """
        network = self._network_of.pop(session_id)
        deadlines = self._deadlines[network]
        deadlines.drop(session_id)
        if not deadlines:
            del self._deadlines[network]
            return network, None
        return network, deadlines.latest
