"""What the scenarios of several modules do to the state machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.kernel.modelclient import Client
from tests.kernel.modelcounts import failures
from tests.kernel.modelservices import ONE, Guarded
from tests.kernel.statemachine import Machine

FOUR, ALSO, SIX = "203.0.113.2", "203.0.113.3", "2001:db8::2"
BRIEF, LONG, LONGER = 1.0, 9000.0, 20000.0
SERVICE, OPERATOR = 0, 2
# Failed transactions of a table after which two changes have failed with others, and alone.
UNTIL_PUT_OFF = 4


def admit(machine: Machine, address: str, lasts: float = LONG, service: int = 0) -> Client:
    """Connect a client for `lasts` seconds; returns it."""
    machine.connect(address, lasts, service)
    return machine.life.clients[-1]


def end(machine: Machine, client: Client, how: str = "close") -> None:
    """End a client's session: `how` as for `Machine.end_session`."""
    machine.end_session(machine.life.clients.index(client), how)


@contextmanager
def failing(
    machine: Machine, times: int, tables: Sequence[str] | None = None
) -> Iterator[None]:
    """Wait at the end until so many transactions of each table, or these, have failed."""
    life = machine.life
    expected = {
        table: failures(life.registry, table) + times for table in tables or life.world.tables
    }
    yield
    life.until(lambda: all(
        failures(life.registry, table) >= least for table, least in expected.items()))


def leave_from(machine: Machine, first: int) -> None:
    """All clients from number `first` on leave at once."""
    places = range(first, len(machine.life.clients))
    machine.connect_and_leave([(False, "", place, 0.0) for place in places])


def others(
    machine: Machine, baseline: int, policy: str = "ACCEPT", guarded: Guarded = ONE
) -> None:
    """Start the service with rules of others in every chain."""
    machine.begin(policy, True, baseline, guarded)
    for family in machine.life.world.families:
        machine.life.world.add_everywhere(family)
    machine.life.disturbed = True
    machine.life.step()
