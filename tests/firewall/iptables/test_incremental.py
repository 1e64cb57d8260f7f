"""What iptables-save prints, read again and again: the same as read for the first time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.addresses import PortRange
from envelope.config import Config
from envelope.firewall.cooperate import SLICE
from envelope.firewall.errors import UnreadableRules
from envelope.firewall.iptables.doubt import Doubt
from envelope.firewall.iptables.ends import make_ends
from envelope.firewall.iptables.grants import change_all, grants_in, rearrange
from envelope.firewall.iptables.head import openings
from envelope.firewall.iptables.incremental import Rereader
from envelope.firewall.iptables.plan import install, mend, moved
from envelope.firewall.iptables.rules import GRANTS, Rules, grant_rules
from envelope.firewall.iptables.snapshot import Snapshot
from envelope.firewall.iptables.structure import Structure
from envelope.firewall.kernel import Key, Seen
from envelope.firewall.policy import IPV4, RuleChoices
from tests.support.callcounter import CallCounter
from tests.support.fakeiptables import FakeFilterTable, Rejected
from tests.support.generatorsteps import run_steps

PORTS = (PortRange("tcp", 1, 1), PortRange("udp", 2, 2))
LAYOUT = RuleChoices.of(Config(proxy_port=(80,), grant_port=PORTS), (PortRange("tcp", 8880, 8880),))
PLAIN = RuleChoices.of(Config(), (PortRange("tcp", 8880, 8880),))
THEIRS = '-s 9.9.9.9/32 -m comment --comment "a \x0b b" -j DROP'


def key(number: int) -> Key:
    return Key(f"10.0.{number >> 8}.{number & 255}/32")


class Kernel:
    """A filter table with our structure, and what should be in it."""

    def __init__(self, choices: RuleChoices = LAYOUT) -> None:
        self.model = FakeFilterTable()
        self.structure = Structure.of(choices, IPV4, "ACCEPT")
        self.model.apply(install(self.model.snapshot(), self.structure, ()))
        self.model.apply(make_ends([5, 6, 99]))
        self.grants: dict[Key, Rules] = {}

    def want(self, ends: Mapping[Key, int | None], arrange: bool = True) -> None:
        """Let networks in until those ends, or with None no longer."""
        now = self.structure
        wants = {
            key: None if end is None else grant_rules(now.choices, key, end)
            for key, end in ends.items()
        }
        then = now.changed([key for key, want in wants.items() if want],
                           [key for key, want in wants.items() if not want], arrange)
        lines = change_all if then == now else rearrange
        self.model.apply(lines(now, then, self.grants, wants))
        self.structure = then
        self.grants = {key: want for key, want in {**self.grants, **wants}.items() if want}

    def edit(self, *lines: str) -> None:
        """Do as others do, if the kernel lets them; what is then there counts as wanted."""
        with suppress(Rejected):
            self.model.apply([*lines])
        known, self.grants = self.grants, grants_in(self.model.snapshot(), self.structure)[0]
        self.structure = Doubt().settled(self.structure, self.grants, known)

    def read(self, reader: Rereader) -> Seen:
        return run_steps(reader.read(self.model.text(), self.structure, self.grants))

    def read_plainly(self) -> Seen:
        """The same without any memory, by other means."""
        snapshot = self.model.snapshot()
        lines, kinds = mend(snapshot, self.structure)
        grants, astray = grants_in(snapshot, self.structure)
        moving = moved(snapshot, self.structure)
        opening = openings(snapshot, self.structure.chains)
        return Seen(
            [*lines, *astray], [*kinds, *("stray" for _ in astray)], grants, moving, opening)


ENDS = st.dictionaries(st.integers(0, 3).map(key), st.sampled_from([None, 5, 5, 6]), max_size=4)
A_RULE = grant_rules(LAYOUT, key(1), 5)[0]
# So many that they are spread over chains: the first eight in the first behind the trunk.
MANY = {key(number): 5 for number in range(40)}
CHAIN, TRUNK = f"{GRANTS}-B2", f"{GRANTS}-B1"
JUMP = f"{TRUNK} -s 10.0.0.0/29 -j {CHAIN}"
EDITS: st.SearchStrategy[str | list[str]] = st.sampled_from([
    f"-A FORWARD {THEIRS}", f"-A {GRANTS} {THEIRS}", f"-D {GRANTS} {THEIRS}",
    f"-A {GRANTS} {A_RULE}", f"-D {GRANTS} {A_RULE}",
    f"-A {CHAIN} {A_RULE}", f"-D {CHAIN} {A_RULE}", f"-A {TRUNK} {A_RULE}",
    f"-D {GRANTS} -j {TRUNK}", f"-I {GRANTS} 1 {A_RULE}",
    f":{GRANTS} - [0:0]", f":{CHAIN} - [0:0]", f"-A ENVELOPE {A_RULE}", f"-A {JUMP}",
    [f"-D {JUMP}", f":{CHAIN} - [0:0]", f"-X {CHAIN}"], [f"-A {CHAIN} {A_RULE}"] * 2,
    "-P INPUT ACCEPT", "-I INPUT 1 -s 9.9.9.9/32 -j DROP", "-D INPUT -j ENVELOPE",
    "-I INPUT 1 -i wg0 -j ACCEPT", "-A INPUT -j ENVELOPE",
    "-D ENVELOPE -p icmp -j ACCEPT", ":DOCKER - [0:0]",
])
STEPS = st.lists(st.one_of(
    st.tuples(st.just("want"), ENDS), st.tuples(st.just("edit"), EDITS),
    st.tuples(st.just("spread"), st.sampled_from([5, None])),
    st.tuples(st.just("mend"), st.none()),
), max_size=16)


@given(steps=STEPS, looks=st.sets(st.integers(0, 15)))
def test_read_again_is_as_read_for_the_first_time(steps, looks) -> None:
    """Whatever came and went, in however many steps since the last look."""
    kernel, reader = Kernel(), Rereader()
    for number, (what, how) in enumerate(steps):
        if what == "want":
            with suppress(Rejected):
                kernel.want(how)
        elif what == "spread":
            with suppress(Rejected):
                kernel.want(dict.fromkeys(MANY, how))
        elif what == "edit":
            kernel.edit(*([how] if isinstance(how, str) else how))
        else:
            with suppress(Rejected):
                kernel.model.apply([*kernel.read_plainly().mending])
        if number in looks:
            assert kernel.read(reader) == kernel.read_plainly()
    assert kernel.read(reader) == kernel.read_plainly()


def both(kernel: Kernel, reader: Rereader) -> Seen:
    """What is read, which is also what is read for the first time."""
    seen = kernel.read(reader)
    assert seen == kernel.read_plainly()
    return seen


def test_a_chain_that_went_with_its_grants_is_mended() -> None:
    kernel, reader = Kernel(), Rereader()
    kernel.want(MANY)
    kernel.read(reader)
    kernel.edit(f"-D {JUMP}", f":{CHAIN} - [0:0]", f"-X {CHAIN}")
    seen = both(kernel, reader)
    assert f":{CHAIN} - [0:0]" in seen.mending
    assert seen.grants.keys() == {key(number) for number in range(8, 40)}


def test_grants_in_chains_of_another_arrangement_are_astray() -> None:
    """Also those that were where they belonged at the last look."""
    kernel, reader = Kernel(), Rereader()
    kernel.want(MANY)
    assert both(kernel, reader).grants.keys() == MANY.keys()
    staying = {each for each in MANY if kernel.structure.leaf(each) == GRANTS}
    kernel.structure = kernel.structure.emptied
    assert both(kernel, reader).grants.keys() == staying < MANY.keys()


def test_a_grant_that_came_again_is_in_the_first_chain_alone() -> None:
    """Where it was before, only others can have put it."""
    kernel, reader = Kernel(), Rereader()
    kernel.want(MANY)
    both(kernel, reader)
    for end in (None, 5):
        kernel.want({key(1): end})
    kernel.model.apply([f"-A {CHAIN} {A_RULE}"])
    seen = both(kernel, reader)
    assert seen.mending == [f"-D {CHAIN} {A_RULE}"]
    assert seen.grants == kernel.grants


def test_a_grant_that_others_have_made_is_prolonged_where_it_is() -> None:
    """And revoked there: it is not looked for among the newest."""
    kernel, new = Kernel(PLAIN), key(6)
    kernel.want({**MANY, new: None})
    leaf = kernel.structure.leaf(new)
    kernel.edit(*(f"-A {leaf} {rule}" for rule in grant_rules(PLAIN, new, 5)))
    assert kernel.structure.leaf(new) == leaf != GRANTS
    for end in (5, 6, None):
        kernel.want({new: end})
        seen = kernel.read_plainly()
        assert seen.mending == []
        assert seen.grants == kernel.grants


def test_the_rules_of_one_network_are_in_order_however_they_come_back() -> None:
    kernel, reader = Kernel(), Rereader()
    kernel.want({key(1): 5})
    seen = both(kernel, reader)
    for rule in reversed(seen.grants[key(1)]):
        kernel.edit(f"-D {GRANTS} {rule}")
        assert len(both(kernel, reader).grants[key(1)]) == 1
        kernel.edit(f"-I {GRANTS} 1 {rule}")
        assert both(kernel, reader) == seen


@pytest.mark.parametrize("grants", [{key(1): 5}, MANY])
def test_what_changes_by_itself_is_no_difference(grants) -> None:
    """The time of day, and how many packets a policy has judged."""
    kernel, reader = Kernel(), Rereader()
    kernel.want(grants)
    text = kernel.model.text()
    with CallCounter() as first:
        seen = run_steps(reader.read(text, kernel.structure, kernel.grants))
    later = text.replace("by a model", "on Tuesday").replace("INPUT DROP [0:0]", "INPUT DROP [9:9]")
    assert later != text
    with CallCounter() as again:
        assert run_steps(reader.read(later, kernel.structure, kernel.grants)) == seen
    assert seen.mending == []
    assert again.calls < first.calls


def test_what_cannot_be_read_is_refused_and_changes_nothing() -> None:
    """A text cut off anywhere, and a grant in a chain that is not there."""
    kernel, reader = Kernel(), Rereader()
    kernel.want(MANY)
    seen = kernel.read(reader)
    text = kernel.model.text()
    chain = f":{CHAIN} - [0:0]\n"
    assert chain in text
    for wrong in (text.replace(chain, ""), text.partition("COMMIT")[0], "gibberish"):
        for each in (reader, Rereader()):
            with pytest.raises(UnreadableRules):
                run_steps(each.read(wrong, kernel.structure, kernel.grants))
        assert kernel.read(reader) == seen


def test_rules_that_are_as_they_were_written_are_the_same_objects() -> None:
    kernel, reader = Kernel(), Rereader()
    kernel.want({key(1): 5, key(2): 6})
    seen = kernel.read(reader)
    assert all(seen.grants[key] is rules for key, rules in kernel.grants.items())


def work(kernel: Kernel, reader: Rereader) -> int:
    """Steps that reading takes, in calls of Python's functions and others."""
    text = kernel.model.text()
    steps = reader.read(text, kernel.structure, kernel.grants)
    with CallCounter() as done:
        run_steps(steps)
    return done.calls + sum(done.builtin.values())


def changed_by(change: Callable[[Kernel], None], grants: int) -> int:
    """The work of a look after `change`, among so many grants."""
    kernel, reader = Kernel(PLAIN), Rereader()
    kernel.want({key(number): 5 for number in range(grants)})
    for _ in range(2):
        kernel.read(reader)
    change(kernel)
    return work(kernel, reader)


# With what may be added among many: a way through more chains, or a look at all chains.
DEEPER, ALL_CHAINS = 60, 1500
CHANGES: dict[str, tuple[Callable[[Kernel], None], int]] = {
    "nothing": (lambda kernel: None, 0),
    "one came": (lambda kernel: kernel.want({key(5000): 5}, arrange=False), DEEPER),
    "one went": (lambda kernel: kernel.want({key(7): None}, arrange=False), DEEPER),
    "one was prolonged": (lambda kernel: kernel.want({key(7): 99}), DEEPER),
    "one was deleted": (lambda kernel: kernel.edit(
        f"-D {kernel.structure.leaf(key(7))} {grant_rules(PLAIN, key(7), 5)[0]}"), DEEPER),
    "others' rule came": (lambda kernel: kernel.edit(f"-A {GRANTS} {THEIRS}"), ALL_CHAINS),
    "the jump was deleted": (lambda kernel: kernel.edit("-D INPUT -j ENVELOPE"), ALL_CHAINS),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_look_costs_what_has_changed_and_not_what_is_there(what) -> None:
    """Nearly the same steps among 40 grants and among 2,000."""
    change, more = CHANGES[what]
    # Once before, so that what is cached for good is cached for both.
    changed_by(change, 40)
    few = changed_by(change, 40)
    assert few <= changed_by(change, 2000) <= few + more


def test_each_change_costs_the_same() -> None:
    """A few steps for each line that came or went."""
    one, many = (
        changed_by(lambda kernel: kernel.want({key(n): 99 for n in range(number)}), 300)  # noqa: B023
        for number in (1, 101)
    )
    assert one < many <= one + 100 * 60


def test_chains_that_are_split_cost_no_more_than_their_grants() -> None:
    """The others are not read anew."""
    split = {key(5000 + n): 5 for n in range(40)}
    few, many = (
        changed_by(lambda kernel: kernel.want(split), number) for number in (300, 2000)
    )
    assert few <= many <= few + 2 * ALL_CHAINS


def test_many_changes_are_read_in_pieces() -> None:
    """So that clients are served in between."""
    kernel, reader, sizes = Kernel(PLAIN), Rereader(), []
    kernel.want({key(number): 5 for number in range(3 * SLICE)})
    for _ in range(2):
        run_steps(reader.read(kernel.model.text(), kernel.structure, kernel.grants), sizes)
        kernel.want(dict.fromkeys(kernel.grants))
    # Three of lines to be read, and of those to be noted, and of those that went.
    assert sizes.count(SLICE) >= 9


def test_a_comment_with_anything_in_it_is_one_line() -> None:
    """Only a newline ends a line of iptables-save's."""
    assert Snapshot.parse(f"*filter\n:X - [0:0]\n-A X {THEIRS}\nCOMMIT\n").rules["X"] == (THEIRS,)
