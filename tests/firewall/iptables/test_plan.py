"""Plans: from whatever the kernel holds to what it should hold, and back."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.addresses import PortRange
from envelope.config import Config
from envelope.firewall.iptables.ends import make_ends
from envelope.firewall.iptables.grants import change, change_all, end_of, grants_in
from envelope.firewall.iptables.plan import install, is_all_ours, mend, moved, remove
from envelope.firewall.iptables.rules import CHAIN, GRANTS, grant_rules
from envelope.firewall.iptables.snapshot import Snapshot
from envelope.firewall.iptables.structure import Structure, before, forget, was_loose
from envelope.firewall.kernel import Key
from envelope.firewall.policy import IPV4, RuleChoices
from tests.support.fakeiptables import FakeFilterTable

A, B = Key("203.0.113.7/32"), Key("203.0.113.8/32")
FOREIGN = ["-s 9.9.9.9/32 -j DROP", "-i lo -j ACCEPT", "-p tcp -m tcp --dport 22 -j ACCEPT"]

foreign_rules = st.lists(st.sampled_from(FOREIGN), max_size=3)
policies = st.sampled_from(["ACCEPT", "DROP"])


def choices(**options: object) -> RuleChoices:
    return RuleChoices.of(Config(**options), (PortRange("tcp", 8880, 8880),))  # type: ignore[arg-type]


def bans(rules: list[str]) -> int:
    """How many rules at the head only drop."""
    return next((n for n, rule in enumerate(rules) if not rule.endswith("DROP")), len(rules))


# Which devices are guarded besides the one, as an attacker of names may choose them.
also_guarded = st.sampled_from([(), ("wan0",), ("br0", "wan0"), ('a"b',), ("\x1b",)])


@given(policy=policies, foreign=foreign_rules, chosen=st.sampled_from([choices(), choices(
    established="keep", allow=())]), steps=st.lists(also_guarded, max_size=4), crash=st.booleans())
def test_other_devices_are_guarded_in_one_transaction(
    policy, foreign, chosen, steps, crash
) -> None:
    """That is no drift, and in the end all is as it was."""
    kernel = model(policy, foreign)
    first = kernel.text()
    structure = start(kernel, chosen)
    kernel.rules[CHAIN].insert(3, FOREIGN[0])
    single = kernel.text()
    for also in steps:
        structure = replace(structure, choices=replace(chosen, also_guarded=also))
        lines, kinds = mend(kernel.snapshot(), structure)
        assert kinds == []
        kernel.apply(lines)
        assert mend(kernel.snapshot(), structure) == ([], [])
        fresh = model(policy, foreign)
        start(fresh, structure.choices)
        fresh.rules[CHAIN].insert(3, FOREIGN[0])
        assert (kernel.policies, kernel.rules) == (fresh.policies, fresh.rules)
    if crash:
        # A service that starts now finds the devices' chain of the one before.
        structure = start(kernel, chosen)
    else:
        structure = replace(structure, choices=chosen)
        kernel.apply(mend(kernel.snapshot(), structure)[0])
        assert kernel.text() == single
    assert mend(kernel.snapshot(), structure) == ([], [])
    kernel.apply(remove(kernel.snapshot()))
    assert kernel.text() == first


def test_the_rules_for_several_devices_read_as_documented() -> None:
    kernel = model("ACCEPT", [])
    start(kernel, replace(choices(), also_guarded=("wan0", 'w"a', "\x1b")))
    assert kernel.rules[CHAIN][0] == "-j ENVELOPE-DEVICES"
    assert kernel.rules["ENVELOPE-DEVICES"] == [
        "-i eth0 -j RETURN", "-i wan0 -j RETURN", "-i w+ -j RETURN", "-j RETURN", "-j ACCEPT"]


def test_rules_for_several_devices_that_others_changed_are_mended() -> None:
    kernel = model("ACCEPT", [])
    structure = start(kernel, replace(choices(), also_guarded=("wan0",)))
    good = kernel.text()
    for change_them in (
        lambda: kernel.rules["ENVELOPE-DEVICES"].clear(),
        lambda: kernel.rules[CHAIN].remove("-j ENVELOPE-DEVICES"),
        lambda: kernel.rules[CHAIN].insert(0, "! -i eth0 -j ACCEPT"),
        lambda: kernel.rules["ENVELOPE-DEVICES"].insert(0, "-i wan0 -j ACCEPT"),
    ):
        change_them()
        kernel.apply(mend(kernel.snapshot(), structure)[0])
        assert kernel.text() == good


def model(policy: str, foreign: list[str]) -> FakeFilterTable:
    kernel = FakeFilterTable()
    kernel.policies["INPUT"] = policy
    kernel.rules["INPUT"] = list(foreign)
    return kernel


def grant(chosen: RuleChoices, key: Key, end: int) -> list[str]:
    """The lines that let a network in."""
    return [*make_ends([end]), *change(GRANTS, (), grant_rules(chosen, key, end))]


def start(kernel: FakeFilterTable, chosen: RuleChoices, loose: bool = False) -> Structure:
    found = kernel.snapshot()
    structure = Structure.of(chosen, IPV4, before(found), loose or was_loose(found))
    kernel.apply(install(found, structure, grant_rules(chosen, A, 4), (4,)))
    return structure


layouts = st.builds(
    choices,
    baseline=st.sampled_from(["service", "operator"]),
    established=st.sampled_from(["cut", "keep"]),
    proxy_port=st.sampled_from([(), (80, 443)]),
    grant_port=st.sampled_from([(), (PortRange("tcp", 5000, 5010), PortRange("udp", 1, 2))]),
)


@given(policy=policies, foreign=foreign_rules, chosen=layouts, crashes=st.integers(0, 2))
def test_start_and_stop_give_back_what_was_there(policy, foreign, chosen, crashes) -> None:
    """However often the service was killed in between, and whatever it held."""
    kernel = model(policy, foreign)
    first = kernel.text()
    for _ in range(crashes + 1):
        structure = start(kernel, chosen)
        assert mend(kernel.snapshot(), structure) == ([], [])
        place = bans(foreign)
        jump = f"-j {CHAIN if chosen.baseline == 'service' else GRANTS}"
        assert kernel.rules["INPUT"] == [*foreign[:place], jump, *foreign[place:]]
        kernel.apply(grant(chosen, B, 1000))
    kernel.apply(remove(kernel.snapshot()))
    assert kernel.text() == first


@given(policy=policies, foreign=foreign_rules, first=layouts, second=layouts)
def test_a_successor_with_other_options_still_gives_back_the_first_rules(
    policy, foreign, first, second
) -> None:
    """A killed service's leftovers are cleared even when its successor wants other rules."""
    kernel = model(policy, foreign)
    before_all = kernel.text()
    start(kernel, first, loose=True)
    structure = start(kernel, second)
    assert was_loose(kernel.snapshot())
    assert mend(kernel.snapshot(), structure) == ([], [])
    kernel.apply(forget())
    assert not was_loose(kernel.snapshot())
    assert mend(kernel.snapshot(), replace(structure, loose=False)) == ([], [])
    assert (kernel.policies["INPUT"] == "DROP") or second.baseline == "operator"
    kernel.apply(remove(kernel.snapshot()))
    assert kernel.text() == before_all


def test_an_absent_table_is_remembered_as_absent() -> None:
    """So that the stop can take away the table that the start made."""
    assert before(Snapshot.parse("")) == "ABSENT"
    kernel = FakeFilterTable()
    structure = Structure.of(choices(), IPV4, before(Snapshot.parse("")))
    kernel.apply(install(Snapshot.parse(""), structure, ()))
    assert before(kernel.snapshot()) == "ABSENT"
    kernel.apply(remove(kernel.snapshot()))
    assert kernel.text() == FakeFilterTable().text()


@given(chosen=layouts, loose=st.booleans())
def test_a_table_with_nothing_but_ours_may_go_as_a_whole(chosen, loose) -> None:
    """Grants and others' jumps to our chains included."""
    kernel = FakeFilterTable()
    start(kernel, chosen, loose)
    kernel.apply(grant(chosen, B, 1000))
    kernel.apply([f"-A FORWARD -i eth1 -j {CHAIN if chosen.baseline == 'service' else GRANTS}"])
    assert is_all_ours(kernel.snapshot())


@given(chosen=layouts, line=st.sampled_from([
    "-A INPUT -i lo -j ACCEPT", "-A FORWARD -i lo -j ACCEPT", "-P FORWARD DROP", "-P OUTPUT DROP",
    ":DOCKER - [0:0]",
]))
def test_a_table_with_anything_of_others_stays(line, chosen) -> None:
    """Be it an empty chain or a policy."""
    kernel = FakeFilterTable()
    start(kernel, chosen)
    kernel.apply([line])
    assert not is_all_ours(kernel.snapshot())


def test_an_operators_own_policy_is_not_ours() -> None:
    """With `--baseline=operator` we set none."""
    kernel = model("DROP", [])
    start(kernel, choices(baseline="operator"))
    assert not is_all_ours(kernel.snapshot())


INTERFERENCE = {
    "chain": lambda k: [*_empty(k, "ENVELOPE"), "-D INPUT -j ENVELOPE", "-X ENVELOPE"],
    "baseline": lambda k: [":ENVELOPE - [0:0]"],
    "policy": lambda k: ["-P INPUT ACCEPT"],
    "jump": lambda k: ["-D INPUT -j ENVELOPE"],
    "above": lambda k: ["-I INPUT 1 -s 9.9.9.9/32 -j ACCEPT"],
    "twice": lambda k: ["-I INPUT 1 -j ENVELOPE"],
    "order": lambda k: ["-D ENVELOPE -p icmp -j ACCEPT", "-A ENVELOPE -p icmp -j ACCEPT"],
}


def _empty(kernel: FakeFilterTable, chain: str) -> list[str]:
    return [f"-D {chain} {rule}" for rule in kernel.rules[chain]]


@pytest.mark.parametrize("kind", INTERFERENCE)
def test_interference_is_mended_in_one_transaction(kind) -> None:
    """Whatever others did, one plan puts it right, and their rules stay."""
    kernel = model("ACCEPT", FOREIGN)
    structure = start(kernel, choices())
    kernel.apply(INTERFERENCE[kind](kernel))
    lines, kinds = mend(kernel.snapshot(), structure)
    moving = moved(kernel.snapshot(), structure)
    assert bool(kinds) == (kind != "above")
    assert bool(moving) == (kind == "above")
    kernel.apply([*lines, *moving])
    assert mend(kernel.snapshot(), structure) == ([], [])
    assert moved(kernel.snapshot(), structure) == []
    assert kernel.policies["INPUT"] == "DROP"
    assert kernel.rules["INPUT"].index("-j ENVELOPE") == bans(kernel.rules["INPUT"])
    assert [r for r in kernel.rules["INPUT"] if r in FOREIGN][-3:] == FOREIGN


def test_a_foreign_rule_in_our_chain_stays() -> None:
    """It is no reason to rebuild the chain."""
    kernel = model("ACCEPT", [])
    structure = start(kernel, choices())
    kernel.apply(["-I ENVELOPE 1 -s 9.9.9.9/32 -j DROP", "-A ENVELOPE-GRANTS -i lo -j ACCEPT"])
    assert mend(kernel.snapshot(), structure) == ([], [])
    assert grants_in(kernel.snapshot(), structure) == ({}, [])


@pytest.mark.parametrize("chosen", [choices(), choices(baseline="operator")])
def test_chains_that_merely_begin_like_ours_are_not_ours(chosen) -> None:
    """Neither a start, a repair nor a stop touches them."""
    kernel = model("ACCEPT", [])
    names = ("ENVELOPE-OTHERS", "ENVELOPE-GRANTS-4", "ENVELOPE-WAS-HERE", "ENVELOPES",
             "ENVELOPE-GRANTS-B", "ENVELOPE-GRANTS-S1B2", "ENVELOPE-END-2026", "ENVELOPE-END")
    kernel.apply([f":{name} - [0:0]" for name in names])
    kernel.apply([f"-A {name} -j DROP" for name in names])
    kernel.apply([f"-A INPUT -j {name}" for name in names])
    first = kernel.text()
    structure = start(kernel, chosen)
    assert all(kernel.rules[name] == ["-j DROP"] for name in names)
    assert not is_all_ours(kernel.snapshot())
    assert mend(kernel.snapshot(), structure) == ([], [])
    kernel.apply(remove(kernel.snapshot()))
    assert kernel.text() == first


def test_an_operators_grants_open_no_port_that_is_kept_closed() -> None:
    """What keeps it closed comes back before the grants."""
    chosen = RuleChoices.of(Config(baseline="operator"), (), (PortRange("tcp", 9990, 9990),))
    kernel = model("ACCEPT", [])
    structure = start(kernel, chosen)
    kernel.apply(grant(chosen, B, 1000))
    closed = "-p tcp -m tcp --dport 9990 -j RETURN"
    assert kernel.rules[GRANTS][0] == closed
    kernel.apply([f"-D {GRANTS} {closed}"])
    lines, kinds = mend(kernel.snapshot(), structure)
    assert kinds == ["baseline"]
    kernel.apply(lines)
    assert kernel.rules[GRANTS][0] == closed


def test_the_stop_lets_go_of_foreign_rules_that_jump_to_us() -> None:
    """Otherwise the kernel would keep our chain."""
    kernel = model("ACCEPT", [])
    first = kernel.text()
    start(kernel, choices())
    kernel.apply(["-A FORWARD -i eth1 -j ENVELOPE"])
    kernel.apply(remove(kernel.snapshot()))
    assert kernel.text() == first


@given(chosen=layouts, ends=st.lists(st.integers(0, 2**31 - 20000), min_size=1, max_size=4))
def test_changes_lead_from_any_end_to_any_other(chosen, ends) -> None:
    """A grant extended, shortened and taken away is read back as wanted each time."""
    kernel = model("ACCEPT", [])
    structure = start(kernel, chosen)
    for end in (*ends, None):
        have, _ = grants_in(kernel.snapshot(), structure)
        want = () if end is None else grant_rules(chosen, A, end)
        kernel.apply([*make_ends([end] if end is not None else []),
                      *change_all(structure, structure, have, {A: want})])
        now, astray = grants_in(kernel.snapshot(), structure)
        assert now == ({A: want} if want else {})
        assert not astray
        assert end_of(now.get(A, ())) == end


def test_a_grant_missing_one_of_its_rules_gets_only_that_back() -> None:
    """And one that stands twice loses only the second."""
    want = ("one -j ACCEPT", "two -j ACCEPT")
    assert change("CHAIN", want[:1], want) == ["-A CHAIN two -j ACCEPT"]
    assert change("CHAIN", (*want, want[0]), want) == ["-D CHAIN one -j ACCEPT"]
    assert change("CHAIN", want, want) == []
