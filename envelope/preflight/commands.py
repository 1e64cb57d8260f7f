"""Runs the kernel's tools in a trial's process: one after the other, each to its end."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from envelope.firewall.errors import ToolFailed, ToolTimeout
from envelope.firewall.process import CLEAN_ENVIRONMENT, one_line
from envelope.runtime.namespaces import die_with_parent

_SBIN: Final = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
# iptables-legacy locks a file that it shares with the whole machine, and makes it if it is missing.
# A trial changes rules in a network of its own alone.
NO_LOCK: Final = {"XTABLES_LOCKFILE": os.devnull}
_ENVIRONMENT: Final = {**CLEAN_ENVIRONMENT, **NO_LOCK, "HOME": os.devnull}
# Seconds.
_PATIENCE: Final = 5.0


def find(name: str, search_path: str, chosen: Path | None = None) -> str | None:
    """The path of a tool, or None."""
    return shutil.which(str(chosen or name), path=f"{search_path}:{_SBIN}")


def command(argv: Sequence[str], stdin: str = "") -> str:
    """Run `argv` and return what it prints; raise `ToolFailed`."""
    name = Path(argv[0]).name
    try:
        done = subprocess.run(  # noqa: S603
            argv, input=stdin.encode("utf-8", "surrogateescape"), capture_output=True, check=False,
            timeout=_PATIENCE, env=_ENVIRONMENT,
            # A tool that hangs must not outlive a check that is killed.
            preexec_fn=partial(die_with_parent, os.getpid()),
        )
    except subprocess.TimeoutExpired:
        raise ToolTimeout(f"{name} did not answer within {_PATIENCE:g} s") from None
    except OSError as error:
        raise ToolFailed(f"{name}: {error.strerror}") from None
    output = done.stdout.decode("utf-8", "surrogateescape")
    if done.returncode:
        raise ToolFailed(f"{name}: {one_line(done.stderr) or f'exit {done.returncode}'}",
                         done.stdout)
    return output
