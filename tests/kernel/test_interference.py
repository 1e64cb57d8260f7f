"""Others change the rules: noticed, repaired in one transaction, counted, and logged once."""

from __future__ import annotations

import re
import time
from ipaddress import ip_network

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults
from twisted.logger import LogEvent, globalLogPublisher

from envelope.firewall import GrantId
from tests.kernel.firewallundertest import KINDS, SERVICE, FirewallUnderTest, Kernel, later, settled

pytestmark = pytest.mark.kernel

LIVE, OTHER = ip_network("203.0.113.1/32"), ip_network("203.0.113.2/32")
MARKER = "(the chain that remembers)"
END = "(the chain that a live grant ends by)"
ALL = [["-F"], ["-X"], ["-P", "INPUT", "ACCEPT"]]
# By name: the commands; the kinds of drift they count as; the foreign rules they add.
INTERFERENCE: dict[str, tuple[list[list[str]], set[str]]] = {
    "our chain flushed": ([["-F", "ENVELOPE"]], {"baseline"}),
    "one of our rules deleted": ([["-D", "ENVELOPE", "5"]], {"baseline"}),
    "our rules out of order": (
        [["-D", "ENVELOPE", "8"], ["-I", "ENVELOPE", "1", "-j", "REJECT"]], {"baseline"}),
    "the grants flushed": ([["-F", "ENVELOPE-GRANTS"]], {"grant"}),
    "a live grant deleted": ([["-D", "ENVELOPE-GRANTS", "1"]], {"grant"}),
    "a grant nobody asked for": (
        [["-A", "ENVELOPE-GRANTS", "-s", "203.0.113.9/32", "-j", END]], {"stray"}),
    "a grant with an end of its own": (
        [["-A", "ENVELOPE-GRANTS", "-s", "203.0.113.9/32", "-m", "time",
          "--datestop", "2030-01-01T00:00:00", "-j", "ACCEPT"]], {"stray"}),
    "an end emptied": ([["-F", END]], {"baseline"}),
    "an end that never comes": ([["-F", END], ["-A", END, "-j", "ACCEPT"]], {"baseline"}),
    "an end that comes later": (
        [["-F", END], ["-A", END, "-m", "time", "--datestop", "2030-01-01T00:00:00", "-j",
                       "ACCEPT"]], {"baseline"}),
    "the jump deleted": ([["-D", "INPUT", "-j", "ENVELOPE"]], {"jump"}),
    "the jump doubled": ([["-A", "INPUT", "-j", "ENVELOPE"]], {"jump"}),
    "the policy reset": ([["-P", "INPUT", "ACCEPT"]], {"policy"}),
    "a rule above us": ([["-I", "INPUT", "1", "-s", "9.9.9.9", "-j", "ACCEPT"]], {"jump"}),
    "INPUT flushed": ([["-F", "INPUT"]], {"jump"}),
    "the memory of the policy flushed": ([["-F", MARKER]], {"baseline"}),
    "the memory of the policy removed": (
        [["-F", MARKER], ["-X", MARKER]], {"chain"}),
    "everything flushed": (ALL, {"chain", "grant", "jump", "policy"}),
}
# The same with so many grants that they are spread over several chains.
SPREAD: dict[str, tuple[list[list[str]], set[str]]] = {
    "the first chain flushed": ([["-F", "ENVELOPE-GRANTS"]], {"baseline"}),
    "a chain flushed": ([["-F", "ENVELOPE-GRANTS-B2"]], {"grant"}),
    "a chain removed": (
        [["-D", "ENVELOPE-GRANTS-B1", "1"], ["-F", "ENVELOPE-GRANTS-B2"],
         ["-X", "ENVELOPE-GRANTS-B2"]], {"baseline", "chain", "grant"}),
    "the chain of all others removed": (
        [["-D", "ENVELOPE-GRANTS", "-j", "ENVELOPE-GRANTS-B1"], ["-F", "ENVELOPE-GRANTS-B1"],
         ["-X", "ENVELOPE-GRANTS-B1"]], {"baseline", "chain", "grant"}),
    "a chain of an older version": (
        [["-N", "ENVELOPE-GRANTS-0123"], ["-A", "ENVELOPE-GRANTS", "-s", "10.0.0.0/8", "-j",
                                          "ENVELOPE-GRANTS-0123"]], {"chain"}),
    "a grant in a wrong chain": (
        [["-A", "ENVELOPE-GRANTS-B1", "-s", "203.0.114.0/32", "-j", END]], {"stray"}),
    "everything flushed": (ALL, {"chain", "grant", "jump", "policy"}),
}
FOREIGN = [
    ["-A", "INPUT", "-s", "9.9.9.8/32", "-j", "DROP"],
    ["-A", "FORWARD", "-s", "9.9.9.7/32", "-j", "DROP"],
    ["-A", "ENVELOPE", "-s", "9.9.9.6/32", "-j", "DROP"],
    ["-I", "ENVELOPE", "3", "-s", "9.9.9.5/32", "-j", "DROP"],
    ["-A", "ENVELOPE-GRANTS", "-s", "9.9.9.4/32", "-j", "DROP"],
]


def interfere(kernel: Kernel, commands: list[list[str]]) -> None:
    """Run an entry's commands in one transaction."""
    own = kernel.snapshot(4).own_chains
    marker = next(chain for chain in own if chain.startswith("ENVELOPE-WAS-"))
    end = re.search(r"(?m)-j (ENVELOPE-END-\S+)$", kernel.saved())
    assert end
    kernel.change(4, *(
        " ".join(words).replace(MARKER, marker).replace(END, end[1]) for words in commands))


def rules_of(kernel: Kernel) -> list[str]:
    """The rules in force, without those of others and the ends that no grant needs yet."""
    lines = kernel.saved().splitlines()
    needed = {*re.findall(r"(?m)-j (ENVELOPE-END-\S+)$", "\n".join(lines))}
    chains = [(line, re.match(r"(?::|-A )(ENVELOPE-END-\S+)", line)) for line in lines]
    return [
        line for line, end in chains
        if "9.9.9." not in line and (end is None or end[1] in needed)
    ]


class Complaints:
    """A context manager that collects the log events about changes by others."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __enter__(self) -> Complaints:
        globalLogPublisher.addObserver(self._observe)
        return self

    def __exit__(self, *_: object) -> None:
        globalLogPublisher.removeObserver(self._observe)

    def _observe(self, event: LogEvent) -> None:
        if "others changed" in (event.get("log_format") or ""):
            self.seen.append(event["kinds"])


@pytest.fixture(params=KINDS)
def subject(request, tmp_path):
    made = FirewallUnderTest(tmp_path, request.param)
    yield made
    made.close()


def foreign(rules: str) -> list[str]:
    return [line for line in rules.splitlines() if "9.9.9." in line]


async def check_repair(subject, what: str, doing, networks) -> None:
    """Open the firewall, grant `networks`, run the commands, and check the repair."""
    commands, kinds = doing
    firewall, kernel = subject.firewall, subject.kernel
    await firewall.open(SERVICE)
    await gatherResults([firewall.allow(GrantId(n), later(60)) for n in networks])
    good = rules_of(kernel)
    await subject.at_rest()
    before = subject.transactions()
    counted = {kind: subject.drift(kind) for kind in kinds}
    with Complaints() as complaints:
        interfere(kernel, commands)
        began = time.monotonic()
        await settled(lambda: subject.transactions() > before)
        print(f"{what}: repaired {time.monotonic() - began:.2f} s later")
        await settled(lambda: {*rules_of(kernel)} == {*good})
        # Two more looks at the kernel find nothing to repair.
        for _ in range(2):
            await subject.at_rest()
            await settled(lambda: len(subject.reactor.children) > subject.writers)
        await subject.at_rest()
    assert subject.transactions() == before + 1
    assert len(complaints.seen) == 1
    assert all(subject.drift(kind) > counted[kind] for kind in kinds)


@pytest.mark.parametrize("what", INTERFERENCE)
@ensureDeferred
async def test_interference_is_repaired_in_one_transaction(subject, what) -> None:
    """It is counted by kind and logged once; our rules, live grants included, are as before."""
    await check_repair(subject, what, INTERFERENCE[what], (LIVE, OTHER))
    if what == "a rule above us":
        assert len(foreign(subject.kernel.saved())) == 1
        subject.kernel.run(4, "-D", "INPUT", "-s", "9.9.9.9", "-j", "ACCEPT")


@pytest.mark.parametrize("what", SPREAD)
@ensureDeferred
async def test_interference_among_many_grants_is_repaired_in_one_transaction(subject, what) -> None:
    """The grants are spread over several chains."""
    many = [ip_network((203 << 24) + (113 << 8) + n) for n in range(0, 256, 4)]
    await check_repair(subject, what, SPREAD[what], many)


@pytest.mark.parametrize("what", [what for what, (words, _) in INTERFERENCE.items()
                                  if not any("-F" in each for each in words)])
@ensureDeferred
async def test_rules_of_others_keep_their_place(subject, what) -> None:
    """In every chain, ours included, a repair keeps them and their order."""
    firewall, kernel = subject.firewall, subject.kernel
    await firewall.open(SERVICE)
    await firewall.allow(GrantId(LIVE), later(60))
    good = rules_of(kernel)
    for words in FOREIGN:
        kernel.run(4, *words)
    before = subject.transactions()
    theirs = foreign(kernel.saved())
    assert len(theirs) == len(FOREIGN)
    await subject.at_rest()
    interfere(kernel, INTERFERENCE[what][0])
    theirs = foreign(kernel.saved())
    await settled(lambda: subject.transactions() > before)
    await subject.at_rest()
    now = kernel.saved()
    assert foreign(now) == theirs
    assert rules_of(kernel) == good
    for line in theirs:
        if not line.startswith("-A ENVELOPE"):
            kernel.run(4, "-D", *line.split()[1:])


@ensureDeferred
async def test_interference_that_cannot_be_repaired_yet_is_logged_once(subject) -> None:
    """However often the tool refuses; it is repaired once the tool works."""
    await subject.firewall.open(SERVICE)
    good = subject.kernel.saved()
    await subject.at_rest()
    failed = subject.transactions(outcomes=("failed",))
    with Complaints() as complaints:
        subject.tools.order("fail")
        subject.kernel.run(4, "-F", "ENVELOPE")
        await settled(lambda: subject.transactions(outcomes=("failed",)) >= failed + 4)
        assert "told to fail" in subject.firewall.problems()[0]
        subject.tools.order()
        await settled(lambda: not subject.firewall.problems())
    assert subject.kernel.saved() == good
    assert len(complaints.seen) == 1
    assert subject.drift("baseline") == 1


@ensureDeferred
async def test_another_that_insists_on_the_first_place_is_not_fought_for_ever(subject) -> None:
    """After five moves there are pauses; a warning says so, and grants go on."""
    firewall, kernel = subject.firewall, subject.kernel
    await firewall.open(SERVICE)
    rule = "INPUT -i wg0 -j ACCEPT"
    for moves in range(1, 6):
        kernel.change(4, *([f"-D {rule}"] if moves > 1 else []), f"-I {rule}")
        await settled(lambda moves=moves: subject.drift("jump") == moves and (
            kernel.snapshot(4).rules["INPUT"][0] == "-j ENVELOPE"))
        await subject.at_rest()
    kernel.change(4, f"-D {rule}", f"-I {rule}")
    await settled(lambda: firewall.warnings() != [])
    await firewall.allow(GrantId(LIVE), later(60))
    assert LIVE in kernel.open_networks()
    assert firewall.problems() == []
    assert subject.drift("jump") == 5
    assert kernel.snapshot(4).rules["INPUT"][1] == "-j ENVELOPE"
    await firewall.close()
    kernel.change(4, f"-D {rule}")


@ensureDeferred
async def test_a_rule_of_others_in_our_chains_that_lets_packets_in_is_a_warning(subject) -> None:
    """It stays, and so does one that only drops, which is none."""
    await subject.firewall.open(SERVICE)
    for rule in (["-I", "ENVELOPE", "1", "-s", "9.9.9.9/32", "-j", "ACCEPT"], *FOREIGN):
        subject.kernel.run(4, *rule)
    await settled(lambda: subject.firewall.warnings() != [])
    (warning,) = subject.firewall.warnings()
    assert "ENVELOPE: -s 9.9.9.9/32 -j ACCEPT" in warning
    assert subject.firewall.problems() == []
    for rule in (["ENVELOPE", "-s", "9.9.9.9/32", "-j", "ACCEPT"],
                 *(each[1:] if each[0] == "-A" else [each[1], *each[3:]] for each in FOREIGN)):
        subject.kernel.run(4, "-D", *rule)
    await settled(lambda: subject.firewall.warnings() == [])
