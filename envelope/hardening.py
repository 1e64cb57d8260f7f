"""What the process does to itself before it reads a key.

The C library has what Python does not offer: prctl(2) and capset(2).
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from collections.abc import Iterable
from typing import Final

from envelope.capabilities import Capabilities, Capability

# linux/prctl.h and linux/capability.h.
_PR_SET_DUMPABLE: Final = 4
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_CAPABILITY_VERSION_3: Final = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def keep_memory_private() -> None:
    """Let no core dump be written, and nobody but root read this process' memory.

    The memory holds the certificate's key and clients' tokens. A limit of 0 is not enough where
    dumps are piped to a program (core(5)); not being dumpable is.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)


def pass_on(held: Capabilities, wanted: Iterable[Capability]) -> None:
    """Let the programs that we run have those of `wanted` that we have; root's have them anyway.

    Ambient capabilities come so from whoever starts the service. Those of the interpreter's file do
    not: they are ours alone until they are made ambient.
    """
    ours = [one for one in wanted if held.permitted >> one & 1 and not held.ambient >> one & 1]
    if not held.uid or not ours:
        return
    inheritable = held.inheritable | sum(1 << one for one in ours)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    sets = (held.effective, held.permitted, inheritable)
    low, high = ([one >> shift & 0xFFFFFFFF for one in sets] for shift in (0, 32))
    _call("capset", header, struct.pack("=6I", *low, *high))
    for one in ours:
        _call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, int(one), 0, 0)


def _call(name: str, *arguments: int | bytes) -> None:
    words = [one if isinstance(one, bytes) else ctypes.c_ulong(one) for one in arguments]
    if getattr(_libc, name)(*words):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
