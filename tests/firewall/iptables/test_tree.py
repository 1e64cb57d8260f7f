"""Grants spread over chains: each is reached, by few comparisons, whatever the addresses."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.firewall.iptables.branching import MOST_WAYS
from envelope.firewall.iptables.tree import DEEPEST, MOST_RULES, NEWEST, Tree
from envelope.firewall.kernel import EVERYONE, Key

ROOT = "ENVELOPE-GRANTS"
# The bits of an address, and those that a grant opens.
SIZES = [(32, 32), (32, 24), (128, 128), (128, 64)]


def key(number: int, bits: int, prefix: int) -> Key:
    """The network with this number among those of its prefix."""
    address = (number % (1 << prefix)) << (bits - prefix)
    return Key(f"{ip_address(address.to_bytes(bits // 8, 'big'))}/{prefix}")


def sets_of(prefix: int, size: int) -> dict[str, list[int]]:
    """Numbers of networks that may be hard to part, by what they are."""
    return {
        "one after another": [*range(size)],
        "from the end": [*range(size, 0, -1)],
        "alike at the end": [(10 << prefix - 8) + (n << 8) + 2 for n in range(size)],
        "alike in the last 16 bits": [n << min(16, prefix - 12) for n in range(size)],
        "scattered": [n * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << prefix) for n in range(size)],
        "two bits each": [
            1 << a | 1 << b for a in range(prefix) for b in range(a)
        ][:size],
        "denser and denser": [
            (1 << prefix) - (1 << prefix - level) + n
            for level in range(1, prefix - 5) for n in range(size // (prefix - 6) + 1)
        ][:size],
        "in two heaps": [n // 2 + (n % 2 << prefix - 1) for n in range(size)],
    }


def way(tree: Tree, key: Key) -> tuple[list[str], int]:
    """The chains that a packet comes through to this grant, and the rules before it.

    As the kernel compares it, which comes back from a chain in which nothing accepts.
    """
    network = ip_network(key)

    def through(chain: str, seen: list[str]) -> Iterator[tuple[str, list[str], bool]]:
        own = [*tree.members[chain]]
        if tree.adds_in_front(chain):
            for each in reversed(own):
                yield each, seen, each == key
        for rule in tree.chains[chain]:
            *source, _, target = rule.split()
            yield rule, seen, False
            if not source or network.network_address in ip_network(source[1]):
                yield from through(target, [*seen, target])
        if not tree.adds_in_front(chain):
            for each in own:
                yield each, seen, each == key

    for rules, (_, seen, found) in enumerate(through(tree.root, [tree.root]), 1):
        if found:
            return seen, rules
    raise AssertionError(f"{key} is not reached")


def check(tree: Tree, keys: set[Key]) -> None:
    """Every network is in its chain and nowhere else, and no chain is too full."""
    held = [key for members in tree.members.values() for key in members]
    assert sorted(held) == sorted(keys)
    assert tree.members.keys() == tree.nodes.keys()
    for chain, members in tree.members.items():
        assert all(tree.leaf(key) == chain for key in members)
        assert len(members) <= tree.most
        assert len(tree.nodes[chain].ways) <= MOST_WAYS
    led_to = [name for node in tree.nodes.values() for name in node.ways]
    assert sorted([tree.root, *led_to]) == sorted(tree.nodes)
    for name, node in tree.nodes.items():
        assert all(tree.nodes[each].before == name for each in node.ways)
        assert all(
            tree.nodes[each].has(*_prefix(tree, inner), tree.bits) is False
            for place, each in enumerate(node.ways) for inner in node.ways[place + 1:]
        ), "a longer prefix stands behind one that contains it"


def _prefix(tree: Tree, name: str) -> tuple[int, int]:
    return tree.nodes[name].start, tree.nodes[name].length


@pytest.mark.parametrize("name", sets_of(32, 1))
@pytest.mark.parametrize(("bits", "prefix"), SIZES)
@pytest.mark.parametrize(("at_once", "most"), [(1, 50), (16, 82), (512, 50)])
def test_a_packet_of_any_of_1000_is_compared_few_times(name, bits, prefix, at_once, most) -> None:
    """Whatever they have in common, and however many come in one transaction."""
    numbers = [*dict.fromkeys(n % (1 << prefix) for n in sets_of(prefix, 1000)[name])]
    keys = [key(number, bits, prefix) for number in numbers]
    tree = Tree.of(ROOT, bits)
    for first in range(0, len(keys), at_once):
        tree = tree.changed(keys[first:first + at_once], ())
    check(tree, set(keys))
    ways = [way(tree, each) for each in keys[::11]]
    # One chain of 1,000 leaves 0.4 of the packets per second.
    assert max(rules for _, rules in ways) <= most
    assert max(len(chains) for chains, _ in ways) <= 1 + DEEPEST


@pytest.mark.parametrize("name", sets_of(32, 1))
def test_there_is_one_chain_again_once_they_have_left(name) -> None:
    """In whatever order they leave, and no change moves more than a few of them."""
    keys = [key(n, 32, 32) for n in dict.fromkeys(sets_of(32, 1000)[name])]
    tree = Tree.of(ROOT, 32).changed(keys, ())
    most = len(tree.nodes)
    for number, each in enumerate(sorted(keys, key=hash)):
        before, tree = tree, tree.changed((), [each])
        moved = [
            key for chain, members in tree.members.items()
            for key in members.keys() - before.members.get(chain, {}).keys()
        ]
        assert len(moved) <= 2 * MOST_RULES
        left = len(keys) - number - 1
        assert len(tree.nodes) <= min(most, 1 + left)
    assert tree.nodes.keys() == {ROOT}


MOVES = st.lists(
    st.tuples(st.booleans(), st.sets(st.integers(0, 200), max_size=60), st.booleans()), max_size=12
)


@given(moves=MOVES, size=st.sampled_from(SIZES), rules=st.sampled_from([1, 4, 40]),
       spread=st.sampled_from([1, 257, 1 << 20]))
def test_whoever_comes_and_goes_every_network_is_in_its_chain(moves, size, rules, spread) -> None:
    """The result depends on nothing but the tree and the change."""
    bits, prefix = size
    tree, held = Tree.of(ROOT, bits, rules), set[Key]()
    for coming, numbers, arrange in moves:
        keys = {key(number * spread, bits, prefix) for number in numbers}
        former, tree = tree, tree.changed(*(keys, ()) if coming else ((), keys), arrange)
        again = former.changed(*(keys, ()) if coming else ((), keys), arrange)
        assert (again.nodes, again.members) == (tree.nodes, tree.members)
        held = held | keys if coming else held - keys
        if not arrange:
            assert tree.nodes is former.nodes
    tree = tree.changed(held, ())
    check(tree, held)
    for each in held:
        way(tree, each)


def test_few_grants_stay_in_one_chain_which_people_can_read() -> None:
    """And the usual change concerns no other chain."""
    tree = Tree.of(ROOT, 32).changed([key(n, 32, 32) for n in range(MOST_RULES)], ())
    assert tree.nodes.keys() == {ROOT}
    spread = tree.changed([key(MOST_RULES, 32, 32)], ())
    assert spread.chains == {ROOT: (f"-j {ROOT}-B1",), f"{ROOT}-B1": ()}
    assert [*spread.members[ROOT]] == [key(MOST_RULES, 32, 32)]
    more = spread.changed([key(MOST_RULES + 1, 32, 32)], [key(3, 32, 32)])
    assert more.nodes is spread.nodes
    tree = spread.changed([key(MOST_RULES + n, 32, 32) for n in range(1, 1 + NEWEST)], ())
    assert tree.chains == {
        ROOT: (f"-j {ROOT}-B1",), f"{ROOT}-B1": (f"-s 0.0.0.0/28 -j {ROOT}-B2",), f"{ROOT}-B2": (),
    }
    assert len(tree.members[f"{ROOT}-B2"]) == MOST_RULES // 2


@pytest.mark.parametrize("at_once", [1, 16, 512])
def test_the_newest_is_compared_first_and_the_others_move_once_each(at_once) -> None:
    """A few at a time, from the first chain to one behind it; those of a full chain besides."""
    keys = [key(number, 32, 32) for number in range(1000)]
    tree, moves = Tree.of(ROOT, 32), 0
    for first in range(0, len(keys), at_once):
        before, tree = tree, tree.changed(keys[first:first + at_once], ())
        came = keys[:first + at_once][-1]
        assert way(tree, came) == ([ROOT], 1)
        assert len(tree.members[ROOT]) <= (NEWEST if len(tree.nodes) > 1 else MOST_RULES)
        moves += before != tree
        assert tree.members[ROOT].keys() <= {*keys[first:first + at_once], *before.members[ROOT]}
    # Each time, all but the newest: that makes room for so many more.
    assert moves <= len(keys) / max(NEWEST, at_once) + 1


def test_a_network_that_is_prolonged_stays_where_it_is() -> None:
    """In the first chain as the newest of all, since its rule is written anew."""
    keys = [key(number, 32, 32) for number in range(100)]
    tree = Tree.of(ROOT, 32)
    for each in keys:
        tree = tree.changed([each], ())
    newest = [*tree.members[ROOT]]
    again = tree.changed([keys[7], newest[0]], ())
    assert again == tree
    assert again.leaf(keys[7]) == tree.leaf(keys[7]) != ROOT
    assert [*again.members[ROOT]] == [*newest[1:], newest[0]]


def test_where_rules_stand_before_the_grants_none_is_added_in_front_of_them() -> None:
    """The first chain is like the others then: no network stays there because it is new."""
    keys = [key(number, 32, 32) for number in range(100)]
    tree = Tree.of(ROOT, 32, apart=False)
    for each in keys:
        tree = tree.changed([each], ())
    assert not any(map(tree.adds_in_front, tree.nodes))
    assert tree.chains[ROOT][0].startswith("-s ")
    check(tree, {*keys})
    assert all(tree.placed([each], [each]).members == tree.members for each in keys)


def test_networks_are_placed_where_their_rules_were_found() -> None:
    """In the first chain, or behind it, wherever they were thought to be."""
    keys = [key(number, 32, 32) for number in range(100)]
    tree = Tree.of(ROOT, 32).changed(keys, ())
    new, old, none = keys[-1], keys[5], key(200, 32, 32)
    assert tree.leaf(new) == ROOT != tree.leaf(old)
    placed = tree.placed([new, old, none], [old])
    assert placed == tree
    assert placed.leaf(old) == ROOT
    assert none in placed.members[placed.leaf(none)]
    check(placed, {*keys, none})


def test_everyones_rules_stay_in_the_first_chain() -> None:
    """They have no source to be spread by."""
    tree = Tree.of(ROOT, 32).changed([EVERYONE[4]], ())
    assert not tree.members[ROOT]
    assert tree.leaf(EVERYONE[4]) == ROOT
