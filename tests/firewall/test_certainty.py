"""Whether a look is needed: our own transactions beside the kernel's count of them."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from envelope.firewall.errors import ToolFailed
from envelope.firewall.generation import Certainty

TRUST = 60.0


class Kernel:
    """Counts transactions, if it counts."""

    def __init__(self) -> None:
        self.generation: int | None = 7
        self.clock = Clock()
        self.certainty = Certainty(lambda: self.generation, self.clock.seconds, TRUST)

    def look(self, meanwhile: int = 0) -> None:
        """Read all rules; somebody makes so many transactions meanwhile."""

        def show() -> Deferred[bytes]:
            if meanwhile:
                self.change(meanwhile)
            return succeed(b"all")

        looking = Deferred.fromCoroutine(self.certainty.read(show))
        looking.addCallback(lambda found: self.certainty.know(found[1]))

    def change(self, by: int = 1) -> None:
        assert self.generation is not None
        self.generation += by


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def test_nothing_is_certain_before_a_look(kernel: Kernel) -> None:
    assert not kernel.certainty.undisturbed
    kernel.look()
    assert kernel.certainty.suffices


def test_our_own_transactions_leave_all_known(kernel: Kernel) -> None:
    kernel.look()
    for _ in range(3):
        with kernel.certainty.writing():
            kernel.change()
    assert kernel.certainty.suffices


def test_others_transactions_and_failures_of_ours_do_not(kernel: Kernel) -> None:
    kernel.look()
    kernel.change()
    assert not kernel.certainty.undisturbed
    kernel.look()
    with pytest.raises(ToolFailed), kernel.certainty.writing():
        raise ToolFailed("no")
    assert not kernel.certainty.undisturbed


def test_somebodys_transaction_during_a_look_leaves_doubt(kernel: Kernel) -> None:
    """What was read may be of before or after."""
    kernel.look(meanwhile=1)
    assert not kernel.certainty.undisturbed


def test_what_the_tool_says_is_believed_for_a_while(kernel: Kernel) -> None:
    kernel.look()
    kernel.clock.advance(TRUST - 1)
    assert kernel.certainty.suffices
    kernel.clock.advance(1)
    assert kernel.certainty.undisturbed
    assert not kernel.certainty.suffices


def test_a_kernel_that_does_not_count_leaves_all_in_doubt(kernel: Kernel) -> None:
    kernel.generation = None
    kernel.look()
    assert not kernel.certainty.undisturbed
