"""The plans of nftables, tried on a model of its table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from envelope.addresses import PortRange
from envelope.config.subjects import Service
from envelope.firewall import FirewallError
from envelope.firewall.errors import UnreadableRules
from envelope.firewall.kernel import EVERYONE, Key
from envelope.firewall.nftables.plan import (
    flush_grants,
    install,
    mend,
    moved,
    remove,
    was_loose,
)
from envelope.firewall.nftables.printed import Printed
from envelope.firewall.nftables.rules import HOOK, Structure, change_elements, element_of, forget
from envelope.firewall.nftables.snapshot import NftSnapshot
from envelope.firewall.policy import RuleChoices
from envelope.firewall.repair import in_order
from tests.support.fakenft import FakeNft, Refused

PORTS = (PortRange("tcp", 8880, 8880),)
GRANTED = PortRange("tcp", 5000, 5010)
SERVICES = (Service("ndt"), Service("wehe", (GRANTED,)), Service("monitoring"))
OPERATORS = [
    "add table inet envelope",
    "add chain inet envelope input { type filter hook input priority filter; policy drop; }",
    "add rule inet envelope input iifname lo accept",
]
THEIRS = ["ip saddr 9.9.9.8 drop", "ip saddr 9.9.9.9 accept"]

layouts = st.builds(
    RuleChoices, st.just("eth0"), st.just(PORTS), st.sampled_from([(), PORTS]),
    st.sampled_from([
        (Service(""),), (Service("ndt", (GRANTED,)),), (Service("ndt", (GRANTED, *PORTS)),),
        SERVICES,
    ]),
    st.sampled_from([(), (80,), (443, 80)]),
    st.sampled_from(["cut", "keep"]), st.sampled_from(["service", "operator"]),
    st.sampled_from(["restore", "keep"]), st.sampled_from([8, 24, 32]),
    st.sampled_from([48, 64, 128]), st.sampled_from([(), (PortRange("tcp", 9990, 9990),)]),
)
structures = st.builds(Structure, layouts, st.booleans())


def seen(model: FakeNft) -> NftSnapshot:
    return NftSnapshot.parse(model.printed())


def installed(structure: Structure) -> tuple[FakeNft, Printed]:
    model = FakeNft()
    if structure.choices.baseline == "operator":
        model.apply(OPERATORS)
    probe = [*change_elements([(Key("192.0.2.1/32"), 9)]),
             *change_elements([(Key("192.0.2.1/32"), None)])]
    model.apply(install(seen(model), structure, probe))
    return model, Printed.learn(seen(model), structure)


also_guarded = st.sampled_from([(), ("wan0",), ("br0", "wan0"), ('a"b',), ("\x1b",)])


@given(structure=structures, steps=st.lists(also_guarded, max_size=4))
def test_other_devices_are_guarded_in_one_transaction(structure, steps) -> None:
    """That is no drift; rules of others in our chain stay."""
    assume(structure.choices.baseline == "service")
    model, learned = installed(structure)
    model.apply(["add rule inet envelope baseline " + THEIRS[0]])
    for also in [*steps, ()]:
        choices = replace(structure.choices, also_guarded=also)
        structure = replace(structure, choices=choices)
        printed = learned.guarding(structure)
        lines, kinds = mend(seen(model), structure, printed)
        assert kinds == []
        model.apply(lines)
        assert mend(seen(model), structure, printed) == ([], [])
        fresh, _ = installed(structure)
        fresh.apply(["add rule inet envelope baseline " + THEIRS[0]])
        assert rules_of(model) == rules_of(fresh)
    model.apply(remove(seen(model)))
    assert model.table is None


def rules_of(model: FakeNft) -> dict[str, list[str]]:
    assert model.table is not None
    return {name: [text for text, _ in chain.rules]
            for name, chain in model.table.chains.items()}


def test_the_rules_for_several_devices_read_as_documented() -> None:
    chosen = RuleChoices("eth0", PORTS, (), SERVICES, (), "cut", "service", "restore",
                    also_guarded=("wan0", 'w"a', "\x1b"))
    model, _ = installed(Structure(chosen))
    assert rules_of(model)["baseline"][0] == "jump guarded"
    assert rules_of(model)["guarded"] == [
        'iifname "eth0" return', 'iifname "wan0" return', 'iifname "w*" return', "return",
        "accept"]


def test_an_operators_own_chain_of_that_name_is_left_alone() -> None:
    chosen = RuleChoices("eth0", PORTS, (), SERVICES, (), "cut", "operator", "restore")
    model, printed = installed(Structure(chosen))
    model.apply(["add chain inet envelope guarded", "add rule inet envelope guarded accept"])
    assert mend(seen(model), Structure(chosen), printed) == ([], [])


@given(structure=structures)
def test_what_is_installed_needs_no_mending_and_goes_without_a_trace(structure) -> None:
    """Twice over: a killed predecessor's leftovers are cleared."""
    model, printed = installed(structure)
    assert mend(seen(model), structure, printed) == ([], [])
    assert was_loose(seen(model)) is (structure.loose and structure.choices.baseline == "service")
    assert not any(model.table.elements.values())
    good = model.printed()
    model.apply(change_elements([(Key("203.0.113.7/32"), 60_000)]))
    model.apply(install(seen(model), structure, ()))
    assert [line.partition(" # ")[0] for line in model.printed().splitlines()] == [
        line.partition(" # ")[0] for line in good.splitlines()]
    model.apply(remove(seen(model)))
    if structure.choices.baseline == "service":
        assert model.table is None
    else:
        untouched = FakeNft()
        untouched.apply(OPERATORS)
        assert model.printed() == untouched.printed()
    assert remove(NftSnapshot()) == []


@given(structure=structures)
def test_what_needs_no_longer_be_remembered_goes_alone(structure) -> None:
    model, printed = installed(structure)
    model.apply(forget(structure))
    assert not was_loose(seen(model))
    assert mend(seen(model), replace(structure, loose=False), printed) == ([], [])


def disturb(model: FakeNft, structure: Structure, data: st.DataObject) -> None:
    """Do one of the things that somebody could do."""
    chain = model.table.chains[data.draw(st.sampled_from([*structure.chains, "input"]))]
    what = data.draw(st.sampled_from(["delete", "double", "theirs", "flush", "hook", "set"]))
    place = data.draw(st.integers(0, len(chain.rules)))
    if what == "theirs":
        chain.rules.insert(place, (data.draw(st.sampled_from(THEIRS)), next(model.handles)))
    elif what == "flush":
        chain.rules.clear()
    elif what == "hook" and structure.choices.baseline == "service":
        hooked = model.table.chains["input"]
        hooked.hook = data.draw(st.sampled_from(
            [hooked.hook.replace("drop", "accept"), hooked.hook.replace("input", "output"), ""]))
        model.table.flags = data.draw(st.sampled_from(["", "dormant"]))
    elif what == "set":
        model.table.chains["grants"].rules.clear()
        model.table.sets.pop("grants4", None)
        if data.draw(st.booleans()):
            model.apply(["add set inet envelope grants4 { type inet_service; }"])
    elif place < len(chain.rules):
        text, _ = chain.rules.pop(place)
        for _ in range(2 if what == "double" else 0):
            where = data.draw(st.integers(0, len(chain.rules)))
            chain.rules.insert(where, (text, next(model.handles)))


def theirs(model: FakeNft, structure: Structure) -> dict[str, list[str]]:
    """Others' rules in each chain that can be mended without doing away with it."""
    chains = model.table.chains
    rebuilt = {"grants"} if model.table.sets.get("grants4") != structure.sets["grants4"] else set()
    if not chains["input"].hook.startswith(HOOK.partition("policy")[0]):
        rebuilt.add("input")
    return {
        name: [text for text, _ in chains[name].rules if text in THEIRS]
        for name in chains.keys() - rebuilt
    }


@given(structure=structures, data=st.data())
def test_whatever_is_done_to_it_one_transaction_puts_it_right(structure, data) -> None:
    """Rules deleted, doubled, put in between; sets gone; another hook; the table asleep."""
    model, printed = installed(structure)
    for _ in range(data.draw(st.integers(1, 5))):
        disturb(model, structure, data)
    kept = theirs(model, structure)
    broken = {
        name for name, chain in seen(model).chains.items()
        if name in printed.chains and not in_order(printed.chains[name], chain.texts)
    }
    lines, kinds = mend(seen(model), structure, printed)
    assert bool(lines) == bool(kinds)
    model.apply([*lines, *moved(seen(model), printed)])
    if seen(model).flags:
        # A table whose hook was changed as well is woken by itself.
        assert mend(seen(model), structure, printed) == (["add table inet envelope"], ["policy"])
        model.apply(["add table inet envelope"])
    assert mend(seen(model), structure, printed) == ([], [])
    assert moved(seen(model), printed) == []
    now = seen(model)
    place = now.chains["input"].texts.index(printed.jump)
    assert set(now.chains["input"].texts[:place]) <= {THEIRS[0]}
    assert now.chains["input"].texts.count(printed.jump) == 1
    assert now.flags == ()
    for name in broken:
        # What was in the wrong place is not there as well.
        ours = tuple(text for text in now.chains[name].texts if text not in THEIRS)
        assert ours == printed.chains[name]
    after = theirs(model, structure)
    assert all(after[name] == rules for name, rules in kept.items())


@given(structure=structures)
def test_a_table_that_is_gone_comes_back_unless_it_was_the_operators(structure) -> None:
    """The operator's own rules nobody else knows."""
    _, printed = installed(structure)
    gone = FakeNft()
    if structure.choices.baseline == "operator":
        with pytest.raises(UnreadableRules, match="gone"):
            mend(seen(gone), structure, printed)
        return
    lines, kinds = mend(seen(gone), structure, printed)
    gone.apply(lines)
    assert kinds == ["chain"]
    assert Printed.learn(seen(gone), structure) == printed


keys = st.sampled_from([
    *(Key(f"203.0.113.{n}/32") for n in range(4)), *(Key(f"2001:db8::{n}/128") for n in range(4)),
    *(Key(f"{each} {n}") for each in ("203.0.113.1/32", "2001:db8::1/128") for n in (1, 2)),
    *EVERYONE.values(),
])
changes = st.dictionaries(keys, st.one_of(st.none(), st.integers(1, 10**9)))
LAYOUT = RuleChoices("eth0", PORTS, (), SERVICES, (80,), "cut", "service", "restore")


@given(batches=st.lists(changes, max_size=6), gone=st.lists(keys), sure=st.sets(keys))
def test_elements_are_as_last_asked_for_whatever_has_run_out(batches, gone, sure) -> None:
    """Where what is there keeps its timeout, and what is not there cannot be deleted.

    Of those in `sure` it is known whether they are there.
    """
    structure = Structure(LAYOUT)
    model, _ = installed(structure)
    wanted: dict[tuple[str, str], int] = {}
    for batch in batches:
        for key in gone:
            name, element = element_of(key)
            model.table.elements[name].pop(element, None)
            wanted.pop((name, element), None)
        standing = {key: element_of(key) in wanted for key in sure}
        model.apply(change_elements(batch.items(), standing))
        for key, lasts in batch.items():
            wanted.pop(element_of(key), None)
            if lasts is not None:
                wanted[element_of(key)] = lasts
    found = {
        (name, element): lasts for name, elements in model.table.elements.items()
        for element, lasts in elements.items()
    }
    assert found == wanted
    model.apply(flush_grants(structure))
    assert not any(model.table.elements.values())


def test_what_is_known_to_be_there_or_not_takes_one_command() -> None:
    """Which halves what nft has to do for a client that comes, or leaves."""
    there, elsewhere = Key("203.0.113.1/32"), Key("203.0.113.2/32")
    standing = {there: True, elsewhere: False}
    assert change_elements([(elsewhere, 9), (there, None)], standing) == [
        "delete element inet envelope grants4 { 203.0.113.1 }",
        "add element inet envelope grants4 { 203.0.113.2 timeout 9ms }",
    ]
    assert change_elements([(elsewhere, None)], standing) == []


@given(changes)
def test_the_beginning_of_a_transaction_lets_nobody_in_for_ever(batch) -> None:
    """Should its writer be killed at the end of a line."""
    lines = change_elements(batch.items())
    for end in range(len(lines)):
        model, _ = installed(Structure(LAYOUT))
        model.apply(lines[:end])
        assert all(lasts for each in model.table.elements.values() for lasts in each.values())


def test_somebody_elses_table_is_refused() -> None:
    """And an operator's chain that is none, or a service's leftover in its place."""
    service = Structure(LAYOUT)
    operator = Structure(RuleChoices("eth0", PORTS, (), SERVICES, (), "cut", "operator", "restore"))
    theirs = FakeNft()
    theirs.apply(OPERATORS)
    with pytest.raises(FirewallError, match="has not made"):
        install(seen(theirs), service, ())
    theirs.apply(["add chain inet envelope grants"])
    with pytest.raises(FirewallError, match="rename"):
        install(seen(theirs), operator, ())
    ours, _ = installed(service)
    for model in (FakeNft(), ours):
        with pytest.raises(FirewallError, match="own rules in the chain input"):
            install(seen(model), operator, ())


def test_the_words_are_learned_from_a_table_that_is_whole() -> None:
    """Not from one that lacks anything."""
    structure = Structure(LAYOUT)
    for command in ("flush chain inet envelope input", "flush chain inet envelope grants",
                    "add table inet envelope"):
        model, _ = installed(structure)
        model.apply([command])
        if command.startswith("add"):
            model.table.sets.pop("proxies")
        with pytest.raises(UnreadableRules, match="as written"):
            Printed.learn(seen(model), structure)
    with pytest.raises(Refused):
        model.apply(["delete chain inet envelope nosuch"])
