"""A network namespace of this process's own, and its end with its parent (unshare(2), prctl(2))."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from pathlib import Path
from typing import Final

# linux/sched.h and linux/prctl.h
_NEW_USER: Final = 0x10000000
_NEW_NET: Final = 0x40000000
_PR_SET_PDEATHSIG: Final = 1

_libc = ctypes.CDLL(None, use_errno=True)


def enter_own_network() -> None:
    """Leave the network namespace for a new, empty one; raise `OSError` where that is not allowed.

    Without CAP_SYS_ADMIN, a user namespace is made as well, in which this process is root. The
    process must not have threads then.
    """
    try:
        _unshare(_NEW_NET)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        user, group = os.geteuid(), os.getegid()
        _unshare(_NEW_USER | _NEW_NET)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when the thread that started it ends, even by `kill -9`.

    `parent` is the id of that thread's process; when it has ended already, this process ends now.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _unshare(flags: int) -> None:
    if _libc.unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
