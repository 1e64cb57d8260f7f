"""Subjects of tokens, and the services that they are let in to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from envelope.addresses import PortRange
from envelope.config.values import name
from envelope.protocol import MONITORING


@dataclass(frozen=True, slots=True)
class Subject:
    """What a token's `sub` may be, and the ports that a grant for it opens.

    Without `ports`, these are `--grant-port`, or all.
    """

    name: str
    ports: tuple[PortRange, ...] = ()

    def __str__(self) -> str:
        return "=".join(filter(None, (self.name, "+".join(map(str, self.ports)))))

    @classmethod
    def parse(cls, text: str) -> Subject:
        """Read `NAME` or `NAME=PROTO/PORT[-PORT][+PROTO/PORT...]`; raise `ValueError`."""
        subject, equals, ports = text.partition("=")
        if name(subject) == MONITORING:
            raise ValueError(
                f"{MONITORING!r} is always let in and needs no option; its grants open the ports "
                "of all subjects"
            )
        if not equals:
            return cls(subject)
        return cls(subject, tuple(dict.fromkeys(map(PortRange.parse, ports.split("+")))))


@dataclass(frozen=True, slots=True)
class Service:
    """What a grant opens: these ports, or everything without any.

    Services are numbered from 0 in their order; a grant belongs to one of them.
    """

    name: str
    ports: tuple[PortRange, ...] = ()


def services_of(
    subjects: tuple[Subject, ...], grant_port: tuple[PortRange, ...]
) -> tuple[Service, ...]:
    """The services that are guarded.

    With one subject, or none, there is one, which monitoring uses too. With several there is one
    for each, and one more for monitoring, whose ports are those of all.
    """
    services = tuple(Service(each.name, each.ports or grant_port) for each in subjects)
    if len(services) == 1:
        return services
    if not services:
        return (Service("", grant_port),)
    return (*services, Service(MONITORING, _together(each.ports for each in services)))


def _together(ports: Iterable[tuple[PortRange, ...]]) -> tuple[PortRange, ...]:
    listed = [*ports]
    if not all(listed):
        return ()
    return tuple(dict.fromkeys(each for part in listed for each in part))


def service_numbers(subjects: tuple[Subject, ...]) -> dict[str, int]:
    """The number of each subject's service, and of monitoring's; see `service_for`."""
    numbers = {each.name: number for number, each in enumerate(subjects)}
    return {**numbers, MONITORING: len(subjects) if len(subjects) > 1 else 0}


def service_for(numbers: Mapping[str, int], subject: str | None) -> int | None:
    """The number of the service that a token's subject is let in to; None for a wrong subject.

    Where no subject is asked for, every one is let in to the only service.
    """
    if numbers.keys() == {MONITORING}:
        return 0
    return None if subject is None else numbers.get(subject)
