"""What the state machine's service guards: one service, or several behind one door."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from envelope.addresses import PortRange
from envelope.config.subjects import Subject
from tests.kernel.udpprobe import PORT

# UDP ports: inside the range of the second subject, and one that no subject has.
RANGED, NOBODYS = PORT + 4, PORT + 2
# A grant for each family that is wanted, by the number of its service and by its network, with its
# deadline in seconds of the wall clock.
Grants = dict[tuple[int, str], float]


@dataclass(frozen=True)
class Guarded:
    """What a start guards.

    Packets are sent to `ports`. `opens` are those of them that a grant opens, by the number of its
    service.
    """

    subjects: tuple[Subject, ...]
    ports: tuple[int, ...]
    opens: tuple[frozenset[int], ...]

    @property
    def several(self) -> bool:
        """Whether a grant belongs to one of several services."""
        return len(self.opens) > 1

    def number(self, drawn: int) -> int:
        """The number of a service, from any number."""
        return drawn % len(self.opens)


# Every grant opens everything.
ONE: Final = Guarded((), (PORT,), (frozenset({PORT}),))
# The last service is monitoring's, which opens what the others do.
SEVERAL: Final = Guarded(
    (
        Subject("probe", (PortRange("tcp", 443, 443), PortRange("udp", PORT, PORT))),
        Subject("ranged", (PortRange("udp", PORT + 3, PORT + 5),)),
    ),
    (PORT, RANGED, NOBODYS),
    (frozenset({PORT}), frozenset({RANGED}), frozenset({PORT, RANGED})),
)
