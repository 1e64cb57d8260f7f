"""The kernel's count of its transactions with nftables."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.firewall.generation import GenerationCounter, read_answer
from tests.support.environment import need_own_network

# As nft 1.0.6 was seen to get it: the generation 2 of a process named nft.
ANSWER = bytes.fromhex(
    "00000002" "08000100" "00000002" "08000200" "00005ae6" "08000300" "6e667400")


def test_the_number_is_read() -> None:
    """Wherever it stands among the attributes."""
    assert read_answer(ANSWER) == 2
    head, rest = ANSWER[:4], ANSWER[4:]
    assert read_answer(head + rest[8:] + rest[:8]) == 2


@pytest.mark.parametrize("message", [
    b"", ANSWER[:3], ANSWER[:4], ANSWER[:10], ANSWER[:4] + bytes(24), ANSWER[:4] + ANSWER[12:],
])
def test_what_is_no_answer_tells_nothing(message) -> None:
    """Half a message, or one without the number."""
    assert read_answer(message) is None


@given(st.binary(max_size=60))
def test_any_bytes_are_read_to_their_end(data) -> None:
    """Without an error, and without going round in circles."""
    read_answer(data)
    read_answer(ANSWER[:4] + data)


@pytest.mark.process
@pytest.mark.kernel
def test_every_transaction_counts_and_nothing_else() -> None:
    """Not looking, not the end of an element's time."""
    need_own_network()

    def nft(*commands: str) -> None:
        subprocess.run(["/usr/sbin/nft", "; ".join(commands)], check=True, capture_output=True)

    counter = GenerationCounter()
    first = counter.number()
    nft("add table ip others", "add set ip others s { type ipv4_addr; flags timeout; }",
        "add element ip others s { 192.0.2.1 timeout 1ms }")
    assert counter.number() == first + 1
    nft("list ruleset")
    assert counter.number() == first + 1
    nft("add element ip others s { 192.0.2.1 }", "delete element ip others s { 192.0.2.1 }")
    assert counter.number() == first + 2
    nft("delete table ip others")
    assert counter.number() == first + 3
    counter.close()


@pytest.mark.process
@pytest.mark.kernel
def test_asking_does_not_wait_for_what_was_deleted() -> None:
    """One socket answers every question, and nothing those after it is closed."""
    need_own_network()
    counter = GenerationCounter()
    numbers = [counter.number() for _ in range(3)]
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    counter.number()
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    counter.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors - 1
    assert counter.number() is None
    assert {*numbers} == {numbers[0]}
    counter.close()
