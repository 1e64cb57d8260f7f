"""What an operator sees of the sessions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from envelope.addresses import Address, Network


@dataclass(frozen=True, slots=True)
class SessionView:
    """One open session. It is shown until its grant is revoked and its slot is free.

    `since` and `until` are seconds since the epoch, by the wall clock at the session's opening.
    `address` and `network` are None for a client without an address (a UNIX socket). `packets` and
    `bytes` are what the grant has let in, None when they are not known. `claims` are those of
    `--log-claim` that the token carries.
    """

    id: str
    address: Address | None
    network: Network | None
    subject: str | None
    since: float
    until: float
    packets: int | None
    bytes: int | None
    claims: Mapping[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Slots:
    """How many slots of `--max-clients` are used; those of `--monitoring-slots` are not among them.

    No slot is free for a client once `used` is `total`.
    """

    used: int
    total: int

    def __str__(self) -> str:
        return f"slots: {self.used} of {self.total}"
