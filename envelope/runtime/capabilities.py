"""Linux capabilities: which this process has, and which its child processes will have.

See capabilities(7). A child gets ours only if we are root or if they are ambient; see
`Capabilities.of_children`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final


class Capability(IntEnum):
    """The capabilities that the service uses, by their numbers in linux/capability.h."""

    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13


_ALL: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Capabilities:
    """One process's sets, each a bit mask, and what else decides about those of its children."""

    uid: int
    inheritable: int
    permitted: int
    effective: int
    bounding: int
    ambient: int
    no_new_privileges: bool

    @classmethod
    def parse(cls, status: str) -> Capabilities:
        """Parse the text of /proc/PID/status (proc(5)); raise `ValueError` if a line is missing."""
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
            raise ValueError(f"/proc/PID/status has no usable line {error}") from None

    @property
    def of_children(self) -> int:
        """The mask that a child gets, if its file has no set-uid bit and no capabilities."""
        if self.uid:
            return self.ambient
        # For root a file counts as having every capability, unless `no_new_privileges` is set.
        return (self.inheritable | self.bounding) & (
            self.permitted if self.no_new_privileges else _ALL
        )


def of_this_process() -> Capabilities:
    """Read the capabilities of this process."""
    return Capabilities.parse(Path("/proc/self/status").read_text())


def missing(held: int, needed: Iterable[Capability]) -> list[str]:
    """The names, as in capabilities(7), of the `needed` ones that the mask `held` lacks."""
    return [f"CAP_{one.name}" for one in needed if not held >> one & 1]


# linux/prctl.h and linux/capability.h.
_PR_SET_DUMPABLE: Final = 4
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_CAPABILITY_VERSION_3: Final = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def keep_memory_private() -> None:
    """Forbid core dumps, and let no other user than root read this process's memory.

    The memory holds the certificate's key and clients' tokens. A limit of 0 is not enough where
    dumps are piped to a program (core(5)), so the process is also made not dumpable (prctl(2)).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)


def pass_on(held: Capabilities, wanted: Iterable[Capability]) -> None:
    """Let child processes have those `wanted` capabilities that this process holds.

    Children of root have them anyway. Ambient capabilities are already inherited. Capabilities of
    the interpreter's file are not, until they are made ambient; they are made effective, too.
    Raises `OSError`.
    """
    ours = [one for one in wanted if held.permitted >> one & 1 and not held.ambient >> one & 1]
    if not held.uid or not ours:
        return
    mask = sum(1 << one for one in ours)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    # Where the file's effective bit is not set, they are not in force in this process yet.
    sets = (held.effective | mask, held.permitted, held.inheritable | mask)
    low, high = ([one >> shift & 0xFFFFFFFF for one in sets] for shift in (0, 32))
    _call("capset", header, struct.pack("=6I", *low, *high))
    for one in ours:
        _call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, int(one), 0, 0)


def _call(name: str, *arguments: int | bytes) -> None:
    words = [one if isinstance(one, bytes) else ctypes.c_ulong(one) for one in arguments]
    if getattr(_libc, name)(*words):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
