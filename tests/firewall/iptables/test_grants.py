"""Grants in the kernel's rules: read, changed, spread over chains and gathered again."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from envelope.addresses import PortRange
from envelope.config import Config
from envelope.config.subjects import Subject
from envelope.firewall import grant_key
from envelope.firewall.iptables.ends import drop_ends, make_ends
from envelope.firewall.iptables.grants import grants_in, rearrange
from envelope.firewall.iptables.plan import install, mend, remove
from envelope.firewall.iptables.rules import GRANTS, grant_rules
from envelope.firewall.iptables.structure import Structure
from envelope.firewall.kernel import EVERYONE, Key
from envelope.firewall.policy import IPV4, RuleChoices
from tests.support.fakeiptables import FakeFilterTable

LAYOUT = RuleChoices.of(
    Config(proxy_port=(80,), grant_port=(PortRange("tcp", 1, 1), PortRange("udp", 2, 2))),
    (PortRange("tcp", 8880, 8880),),
)
OPERATORS = replace(LAYOUT, baseline="operator", closed_ports=(PortRange("tcp", 9990, 9990),))
SERVICES = RuleChoices.of(Config(proxy_port=(80,), subject=(
    Subject("ndt", (PortRange("tcp", 443, 443), PortRange("tcp", 5201, 5201))), Subject("wehe"),
)), (PortRange("tcp", 8880, 8880),))
END, LATER = 1000, 2000

# Many networks close together, so that the chains are split and merged.
KEYS = st.one_of(
    st.builds(lambda n, service: grant_key(f"10.0.{n >> 8}.{n & 255}/32", service),
              st.integers(0, 300), st.sampled_from([0, 0, 0, 1])),
    st.just(EVERYONE[4]),
)
WISHES = st.dictionaries(KEYS, st.sampled_from([None, END, END, LATER]), max_size=60)
OPEN = RuleChoices.of(Config(), ()).services
CROWD = {Key(f"10.1.{n}.2/32"): END for n in range(100)}


def installed(choices: RuleChoices = LAYOUT) -> tuple[FakeFilterTable, Structure]:
    kernel = FakeFilterTable()
    structure = Structure.of(choices, IPV4, "ACCEPT")
    kernel.apply(install(kernel.snapshot(), structure, ()))
    kernel.apply(make_ends([END, LATER]))
    return kernel, structure


def rules(choices, wishes):
    return {
        key: None if end is None else grant_rules(choices, key, end)
        for key, end in wishes.items()
        if len(choices.services) > 1 or " " not in key
    }


def write(kernel, now, in_force, wants, arrange=True):
    """One transaction; the structure afterwards."""
    then = now.changed([key for key, want in wants.items() if want],
                       [key for key, want in wants.items() if not want], arrange)
    kernel.apply(rearrange(now, then, in_force, wants))
    return then


def test_those_that_are_in_move_when_their_chain_is_split_and_back() -> None:
    """One by one, so that nearly all rules that move are of networks that do not change."""
    kernel, now = installed()
    wanted: dict[Key, tuple[str, ...]] = {}
    for end in (END, None):
        for key in CROWD:
            want = rules(LAYOUT, {key: end})
            now = write(kernel, now, wanted, want)
            wanted = {key: rule for key, rule in {**wanted, **want}.items() if rule}
            assert grants_in(kernel.snapshot(), now) == (wanted, [])


@given(steps=st.lists(st.tuples(WISHES, st.booleans(), st.booleans()), max_size=6),
       choices=st.sampled_from([LAYOUT, OPERATORS, SERVICES]))
def test_whatever_is_wanted_comes_true_in_whatever_chains(steps, choices) -> None:
    """Each step is one transaction; nothing but what is wanted is in force afterwards."""
    kernel, now = installed(choices)
    wanted: dict[Key, tuple[str, ...]] = {}
    for wishes, crowded, arrange in steps:
        crowd = CROWD if crowded else dict.fromkeys(CROWD)
        wants = rules(choices, {**crowd, **wishes})
        now = write(kernel, now, wanted, wants, arrange)
        wanted = {key: want for key, want in {**wanted, **wants}.items() if want}
        assert grants_in(kernel.snapshot(), now) == (wanted, [])
        assert mend(kernel.snapshot(), now) == ([], [])
        # What no grant opens is decided before any grant.
        closed = ["-p tcp -m tcp --dport 9990 -j RETURN"] if choices is OPERATORS else []
        assert kernel.rules[GRANTS][:len(closed)] == closed
        # The order of the chain's ways is that in which a packet is to be compared.
        for chain, ways in now.grant_chains.items():
            assert [rule for rule in kernel.rules[chain] if rule in ways] == [*ways]
    kernel.apply([*remove(kernel.snapshot())])
    assert kernel.text() == FakeFilterTable().text()


@given(wishes=WISHES, crowded=st.booleans(), told=st.booleans())
def test_a_change_of_arrangement_that_was_not_told_is_undone(wishes, crowded, told) -> None:
    """A tool that moved the grants and did not say so leaves nothing that counts twice."""
    kernel, flat = installed()
    wants = rules(LAYOUT, {**(CROWD if crowded else {}), **wishes})
    wanted = {key: want for key, want in wants.items() if want}
    really = write(kernel, flat, {}, wanted)
    believed = flat if told else flat.changed([*wanted], (), arrange=False)
    for _ in range(2):
        seen = kernel.snapshot()
        lines, _ = mend(seen, believed)
        grants, astray = grants_in(seen, believed)
        missing = {key: want for key, want in wanted.items() if grants.get(key) != want}
        kernel.apply([*lines, *astray])
        believed = write(kernel, believed, grants, missing, arrange=False)
    assert grants_in(kernel.snapshot(), believed) == (wanted, [])
    assert mend(kernel.snapshot(), believed) == ([], [])
    assert crowded or really.trees == flat.trees or len(wanted) > 8


def test_a_grant_in_a_wrong_chain_is_taken_away() -> None:
    """It would outlive its revocation."""
    kernel, flat = installed()
    now = write(kernel, flat, {}, rules(LAYOUT, CROWD))
    key = Key("10.1.3.2/32")
    assert now.leaf(key) != GRANTS
    (rule, _) = grant_rules(LAYOUT, Key("10.1.3.9/32"), END)
    kernel.apply([f"-A {GRANTS} {rule}"])
    assert grants_in(kernel.snapshot(), now)[1] == [f"-D {GRANTS} {rule}"]


def test_a_grant_for_one_service_is_none_for_another() -> None:
    """The chain tells them apart, and the ports stand in the rules that lead to it."""
    kernel, now = installed(SERVICES)
    both = {grant_key("10.0.0.1/32", number): END for number in (0, 1)}
    wanted = rules(SERVICES, both)
    write(kernel, now, {}, wanted)
    assert kernel.rules[GRANTS] == [
        "-p tcp -m tcp --dport 443 -j ENVELOPE-GRANTS-S0",
        "-p tcp -m tcp --dport 5201 -j ENVELOPE-GRANTS-S0",
        "-j ENVELOPE-GRANTS-S1",
        "-j ENVELOPE-GRANTS-S2",
    ]
    for number in (0, 1):
        assert kernel.rules[f"{GRANTS}-S{number}"] == [
            "-s 10.0.0.1/32 -j ENVELOPE-END-19700101T001640"]
    assert grants_in(kernel.snapshot(), now) == (wanted, [])
    kernel.apply([f"-A {GRANTS} -s 10.0.0.1/32 -j ENVELOPE-END-19700101T001640"])
    assert len(grants_in(kernel.snapshot(), now)[1]) == 1


def test_a_usual_change_is_one_rule() -> None:
    """Among a thousand as among ten, and a new end is a rule that replaces one."""
    for size in (10, 1000):
        crowd = {Key(f"10.{n >> 8}.{n & 255}.2/32"): END for n in range(size)}
        now = Structure.of(replace(LAYOUT, services=OPEN), IPV4, "ACCEPT")
        grants = rules(now.choices, crowd)
        now = now.changed([*grants], ())
        key = Key("10.0.5.2/32")
        leaf = now.leaf(key)
        for wish, lines in (
            (None, [f"-D {leaf} {grants[key][0]}"]),
            (LATER, [f"-I {leaf} 1 -s {key} -j ENVELOPE-END-19700101T003320",
                     f"-D {leaf} {grants[key][0]}"]),
        ):
            wants = rules(now.choices, {key: wish})
            then = now.changed([key] if wish else [], [] if wish else [key])
            assert then == now
            assert rearrange(now, then, grants, wants) == lines


def test_no_end_is_left_when_all_grants_are_gone() -> None:
    kernel, _ = installed()
    kernel.apply(drop_ends([END, LATER]))
    assert not [chain for chain in kernel.rules if "-END-" in chain]
