"""Grants in the kernel's rules: read, changed, spread over chains and gathered again."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from envelope.addresses import PortRange
from envelope.config import Config
from envelope.firewall.iptables.grants import change_all, grants_in, should_spread
from envelope.firewall.iptables.plan import Structure, install, mend, remove
from envelope.firewall.iptables.rules import GRANTS, grant_rules
from envelope.firewall.iptables.spread import GATHER_BELOW, SPREAD_ABOVE, leaf
from envelope.firewall.kernel import EVERYONE, Key
from envelope.firewall.policy import IPV4, RuleChoices
from tests.support.fakeiptables import FakeFilterTable

LAYOUT = RuleChoices.of(
    Config(proxy_port=(80,), grant_port=(PortRange("tcp", 1, 1), PortRange("udp", 2, 2))),
    (PortRange("tcp", 8880, 8880),),
)
KEYS = st.one_of(
    st.integers(0, 2**32 - 1).map(
        lambda n: Key(".".join(map(str, n.to_bytes(4, "big"))) + "/32")
    ),
    st.just(EVERYONE[4]),
)
WISHES = st.dictionaries(KEYS, st.one_of(st.none(), st.integers(0, 2**31 - 20000)), max_size=12)


OPERATORS = replace(LAYOUT, baseline="operator", closed_ports=(PortRange("tcp", 9990, 9990),))


def installed(choices: RuleChoices = LAYOUT) -> tuple[FakeFilterTable, Structure]:
    kernel = FakeFilterTable()
    structure = Structure(choices, IPV4, "ACCEPT")
    kernel.apply(install(kernel.snapshot(), structure, ()))
    return kernel, structure


def rules(wishes):
    return {key: None if end is None else grant_rules(LAYOUT, key, end)
            for key, end in wishes.items()}


@given(steps=st.lists(st.tuples(WISHES, st.booleans()), max_size=6),
       choices=st.sampled_from([LAYOUT, OPERATORS]))
def test_whatever_is_wanted_comes_true_spread_or_not(steps, choices) -> None:
    """Each step is one transaction; nothing but what is wanted is in force afterwards."""
    kernel, now = installed(choices)
    first = FakeFilterTable().text()
    wanted: dict[Key, tuple[str, ...]] = {}
    for wishes, spread in steps:
        then = replace(now, spread=spread)
        wants = rules(wishes)
        kernel.apply(change_all(now, then, wanted, wants))
        wanted = {key: want for key, want in {**wanted, **wants}.items() if want}
        now = then
        assert grants_in(kernel.snapshot(), now) == (wanted, [])
        assert mend(kernel.snapshot(), now) == ([], [])
        # What no grant opens is decided before any grant.
        closed = ["-p tcp -m tcp --dport 9990 -j RETURN"] if choices is OPERATORS else []
        assert kernel.rules[GRANTS][:len(closed)] == closed
    kernel.apply(remove(kernel.snapshot()))
    assert kernel.text() == first


@given(wishes=WISHES, kernel_spreads=st.booleans())
def test_a_change_of_arrangement_that_was_not_told_is_undone(wishes, kernel_spreads) -> None:
    """A tool that moved the grants and did not say so leaves nothing that counts twice."""
    kernel, flat = installed()
    spread = replace(flat, spread=True)
    really, believed = (spread, flat) if kernel_spreads else (flat, spread)
    wanted = {key: want for key, want in rules(wishes).items() if want}
    kernel.apply(change_all(flat, really, {}, wanted))
    for _ in range(2):
        seen = kernel.snapshot()
        lines, _ = mend(seen, believed)
        grants, astray = grants_in(seen, believed)
        missing = {key: want for key, want in wanted.items() if grants.get(key) != want}
        kernel.apply([*lines, *astray, *change_all(believed, believed, grants, missing)])
    assert grants_in(kernel.snapshot(), believed) == (wanted, [])
    assert mend(kernel.snapshot(), believed) == ([], [])


def test_a_grant_in_a_wrong_chain_is_taken_away() -> None:
    """It would outlive its revocation."""
    kernel, flat = installed()
    spread = replace(flat, spread=True)
    key = Key("203.0.113.7/32")
    (rule, _) = grant_rules(LAYOUT, key, 1000)
    kernel.apply(change_all(flat, spread, {}, {}))
    kernel.apply([f"-A {GRANTS} {rule}", f"-A {leaf(key)} {rule}"])
    grants, astray = grants_in(kernel.snapshot(), spread)
    assert grants == {key: (rule,)}
    assert astray == [f"-D {GRANTS} {rule}"]


def test_grants_are_not_moved_to_and_fro() -> None:
    """Between few and many they stay as they are."""
    _, flat = installed()
    spread = replace(flat, spread=True)
    for number in range(GATHER_BELOW + 1, SPREAD_ABOVE + 1):
        assert not should_spread(flat, number)
        assert should_spread(spread, number)
    assert should_spread(flat, SPREAD_ABOVE + 1)
    assert not should_spread(spread, GATHER_BELOW)
