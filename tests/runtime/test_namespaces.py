"""The end of a child process with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
from functools import partial

import pytest

from envelope.runtime.namespaces import die_with_parent


@pytest.mark.process
@pytest.mark.parametrize(("parent", "status"), [(os.getpid(), 0), (0, -signal.SIGKILL)])
def test_a_child_whose_parent_ended_before_it_asked_ends_too(parent: int, status: int) -> None:
    done = subprocess.run(["true"], preexec_fn=partial(die_with_parent, parent))
    assert done.returncode == status
