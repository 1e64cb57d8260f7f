"""The claim to a network: one holder, only among the privileged, and gone with its process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from envelope.firewall.claim import Claim, ClaimTaken, ClaimUnavailable
from tests.support.environment import need_own_network
from tests.support.unprivileged import as_nobody

pytestmark = pytest.mark.kernel

# Says whether it got the claim, and keeps it until its input ends.
HOLD = """
import sys
from envelope.firewall.claim import Claim
try:
    claim = Claim()
except Exception as error:
    print(type(error).__name__, error, flush=True)
else:
    print("claimed", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _own_network() -> None:
    need_own_network()


def test_a_second_one_is_refused_until_the_first_is_released() -> None:
    first = Claim()
    with pytest.raises(ClaimTaken):
        Claim()
    first.release()
    Claim().release()


def holder(*by: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*by, sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said_by(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_killed_holder_leaves_nothing() -> None:
    with holder() as process:
        assert said_by(process) == "claimed\n"
        with pytest.raises(ClaimTaken):
            Claim()
        process.kill()
    Claim().release()


@pytest.mark.parametrize("way", [
    ("unshare", "-n"), ("unshare", "-m"), ("unshare", "-pf"),
], ids=["network", "mounts", "processes"])
def test_the_network_alone_counts(way: tuple[str, ...]) -> None:
    """Containers of one pod share it, and nothing else."""
    claim = Claim()
    with holder(*way) as process:
        assert said_by(process) == ("claimed\n" if "-n" in way else "ClaimTaken \n")
    claim.release()


def test_an_ordinary_user_needs_the_capability() -> None:
    """With it, root's claim and the user's exclude each other; without, there is none."""
    with holder(*as_nobody("net_admin")) as process:
        assert said_by(process) == "claimed\n"
        with pytest.raises(ClaimTaken):
            Claim()
    with holder(*as_nobody()) as process:
        assert said_by(process) == "ClaimUnavailable Operation not permitted\n"
    with holder("unshare", "-Ur") as process:
        assert said_by(process) == "ClaimUnavailable Operation not permitted\n"


def test_a_kernel_without_such_queues_has_no_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said as an unknown subsystem of netfilter's is."""
    monkeypatch.setattr("envelope.firewall.claim._NFNL_SUBSYS_QUEUE", 99)
    with pytest.raises(ClaimUnavailable):
        Claim()
