"""Which of Linux's capabilities the firewall's tools will have, and which are missing.

See capabilities(7). A program that we run gets ours only if we are root or if they are ambient:
`of_children` says which. Pure but for `of_this_process`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final


class Capability(IntEnum):
    """Those that matter here, by their numbers in linux/capability.h."""

    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13


_ALL: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Capabilities:
    """One process' sets, each a bit mask, and what else decides over those of its children."""

    uid: int
    inheritable: int
    permitted: int
    effective: int
    bounding: int
    ambient: int
    no_new_privileges: bool

    @classmethod
    def parse(cls, status: str) -> Capabilities:
        """Read /proc/PID/status (proc(5)); raise `ValueError` when a line is not there."""
        fields = dict(line.partition(":")[::2] for line in status.splitlines())
        try:
            return cls(
                uid=int(fields["Uid"].split()[1]),  # the second of the four is the effective one
                inheritable=int(fields["CapInh"], 16),
                permitted=int(fields["CapPrm"], 16),
                effective=int(fields["CapEff"], 16),
                bounding=int(fields["CapBnd"], 16),
                ambient=int(fields["CapAmb"], 16),
                no_new_privileges=int(fields["NoNewPrivs"]) == 1,
            )
        except (KeyError, IndexError) as error:
            raise ValueError(f"no {error} among the lines of the process' status") from None

    @property
    def of_children(self) -> int:
        """What a program without set-uid or capabilities of its own would run with."""
        if self.uid:
            return self.ambient
        # Root's programs count as having every capability, unless nothing may be gained.
        return (self.inheritable | self.bounding) & (
            self.permitted if self.no_new_privileges else _ALL
        )


def of_this_process() -> Capabilities:
    """Read those of this process."""
    return Capabilities.parse(Path("/proc/self/status").read_text())


def missing(held: int, needed: Iterable[Capability]) -> list[str]:
    """The names, as capabilities(7) has them, of what is in `needed` and not in the mask `held`."""
    return [f"CAP_{one.name}" for one in needed if not held >> one & 1]
