"""Runs commands as an ordinary user, or with few capabilities; this needs root."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from envelope.runtime.capabilities import Capability
from tests.support.environment import leave_out, need

NOBODY = 65534
# linux/capability.h: VFS_CAP_REVISION_2, to which VFS_CAP_FLAGS_EFFECTIVE is added.
_REVISION = 0x02000000


def need_root(reason: str) -> None:
    """Skip unless this is root, in a user namespace that has every user."""
    everyone = Path("/proc/self/uid_map").read_text().split() == ["0", "0", str(2**32 - 1)]
    if os.geteuid() != 0 or not everyone:
        leave_out(reason)


def as_nobody(*capabilities: str) -> tuple[str, ...]:
    """The words to put before a command to run it as nobody, with these ambient capabilities.

    Names as in setpriv(1). If the interpreter or this repository lies in a folder that only root
    may enter, the command gets it at the same path, in a mount namespace of its own.
    """
    need_root("only root can start something as somebody else")
    kept = "".join(f",+{name}" for name in capabilities)
    return (
        *_opened_up(), "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
        f"--inh-caps=-all{kept}", f"--ambient-caps=-all{kept}",
    )


def as_bare_root(*capabilities: str) -> tuple[str, ...]:
    """The words to put before a command to run it as root with these capabilities only."""
    kept = "".join(f",+{name}" for name in capabilities)
    return ("setpriv", "--inh-caps=-all", f"--bounding-set=-all{kept}", "--no-new-privs")


def need_own_mounts() -> None:
    """Skip the test where no mount namespace can be made, as in a chroot."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        leave_out("no mounts of one's own here, as in a chroot")


def _opened_up() -> tuple[str, ...]:
    """The words that make this repository and Python readable, where folders above them are not."""
    trees = sorted({Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parents[2]})
    shut = {tree: folder for tree in trees if (folder := _shut_above(tree))}
    if not shut:
        return ()
    need_own_mounts()
    lines = ["set -e", "umask 022", "mount -t tmpfs -o mode=755 tmpfs /mnt"]
    for n, tree in enumerate(shut):
        lines += [f"mkdir /mnt/{n}", f"mount --bind {quote(str(tree))} /mnt/{n}"]
    lines += [f"mount -t tmpfs -o mode=755 tmpfs {quote(str(one))}" for one in set(shut.values())]
    for n, tree in enumerate(shut):
        lines += [f"mkdir -p {quote(str(tree))}", f"mount --bind /mnt/{n} {quote(str(tree))}"]
    return ("unshare", "-m", "sh", "-c", "\n".join((*lines, 'exec "$@"')), "sh")


def _shut_above(tree: Path) -> Path | None:
    return next((one for one in reversed(tree.parents) if not one.stat().st_mode & 0o001), None)


@contextmanager
def public_folder() -> Iterator[Path]:
    """A context manager: a folder that every user may read, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="envelope-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def python_with_a_capability(folder: Path, effective: bool = True) -> Path:
    """A copy of the interpreter with the file capability CAP_NET_ADMIN and the same packages."""
    on_file = struct.pack("<5I", _REVISION + effective, 1 << Capability.NET_ADMIN, 0, 0, 0)
    (folder / "bin").mkdir()
    copy = folder / "bin" / "python"
    shutil.copy(Path(sys.executable).resolve(), copy)
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", folder)
    (folder / "lib").symlink_to(Path(sys.prefix) / "lib")
    try:
        os.setxattr(copy, "security.capability", on_file)
    except OSError as error:
        need(f"no capabilities on files here: {error}")
    return copy
