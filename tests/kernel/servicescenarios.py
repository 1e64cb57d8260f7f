"""Scenarios with several services behind one door; see `scenarios`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.kernel.modelservices import ONE, SEVERAL
from tests.kernel.scenariosteps import (
    ALSO,
    BRIEF,
    FOUR,
    LONG,
    LONGER,
    SERVICE,
    SIX,
    admit,
    end,
    failing,
    leave_from,
    others,
)
from tests.kernel.statemachine import Machine

# Numbers of the services of `SEVERAL`.
PROBE, RANGED, MONITORING = range(3)


def services(machine: Machine) -> None:
    """One network's grants are independent: prolonged, shortened, revoked and ended alone."""
    machine.begin("ACCEPT", False, SERVICE, SEVERAL)
    for address in (FOUR, SIX):
        probe, _ = (admit(machine, address, LONG, each) for each in (PROBE, RANGED))
        everything = admit(machine, address, LONG, MONITORING)
        longer = admit(machine, address, LONGER, RANGED)
        end(machine, probe, "revoked")
        end(machine, everything)
        brief = machine.life.connect(address, BRIEF, PROBE)
        machine.life.until(lambda brief=brief: brief.state == "out")
        machine.life.step()
        end(machine, longer)


def deaths_among_services(machine: Machine) -> None:
    """Killed with grants for every service; the next one guards one service, or several again."""
    others(machine, SERVICE, "DROP", SEVERAL)
    for guarded in (SEVERAL, ONE, SEVERAL):
        for address in (FOUR, SIX):
            for service in range(len(machine.life.guarded.opens)):
                admit(machine, address, LONG, service)
        if guarded is ONE:
            # The grants of the second service are spread over several chains.
            machine.connect_crowd(True, RANGED)
        machine.kill(True)
        machine.start(SERVICE, guarded)
    admit(machine, FOUR, LONG, RANGED)
    machine.stop()


def troubles_among_services(machine: Machine) -> None:
    """While the tool fails, one grant of a network is prolonged, one revoked, and one made."""
    machine.begin("ACCEPT", False, SERVICE, SEVERAL)
    for address in (FOUR, SIX):
        admit(machine, address, LONG, RANGED)
    for orders in ("fail", "die-before-echo"):
        leaving = [admit(machine, address, LONG, PROBE) for address in (FOUR, SIX)]
        machine.break_tool(orders)
        with failing(machine, 1):
            for client in leaving:
                end(machine, client, "revoked")
            for address in (FOUR, SIX):
                machine.life.connect(address, LONGER, RANGED)
                machine.life.connect(address, LONG, MONITORING)
        machine.repair_tool(0.0)
        leave_from(machine, 2)


def interference_among_services(machine: Machine) -> None:
    """What others do to grants comes back as the grants that they were, and for no other service.
    """
    others(machine, SERVICE, guarded=SEVERAL)
    world = machine.life.world
    for address in (FOUR, SIX):
        for service in (PROBE, RANGED):
            admit(machine, address, LONG, service)
    admit(machine, ALSO, LONG, MONITORING)
    for which, what in enumerate(world.edits):
        for family in world.families if "grant" in what or "service" in what else ():
            world.add_everywhere(family)
            machine.change_our_rules(family, which)


SERVICE_SCENARIOS: Final[dict[str, Callable[[Machine], None]]] = {
    "services": services,
    "deaths among services": deaths_among_services,
    "troubles among services": troubles_among_services,
    "interference among services": interference_among_services,
}
