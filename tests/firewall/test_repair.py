"""A chain put back in order around the rules of others."""

from hypothesis import given
from hypothesis import strategies as st

from envelope.firewall.repair import in_order, repair
from tests.support.fakeiptables import FakeFilterTable

OURS = [f"-s 203.0.113.{n}/32 -j ACCEPT" for n in range(6)]
THEIRS = ["-s 9.9.9.8/32 -j DROP", "-s 9.9.9.9/32 -j DROP"]

ours_lists = st.lists(st.sampled_from(OURS), unique=True)
chains = st.lists(st.sampled_from([*OURS, *THEIRS]), max_size=10)


@given(ours=ours_lists, there=chains)
def test_ours_stand_in_order_and_theirs_as_they_did(ours, there) -> None:
    """Whatever was deleted, moved, doubled or put in between."""
    kernel = FakeFilterTable()
    kernel.rules["OWN"] = list(there)
    kernel.apply(repair("OWN", ours, there))
    now = kernel.rules["OWN"]
    assert in_order(ours, now)
    assert [rule for rule in now if rule not in ours] == [r for r in there if r not in ours]
    assert sorted(rule for rule in now if rule in ours) == sorted(ours)


@given(ours=ours_lists, there=st.lists(st.sampled_from(THEIRS), max_size=4))
def test_nothing_is_done_to_a_chain_in_order(ours, there) -> None:
    """With others' rules behind each of ours."""
    chain = [each for rule in ours for each in (rule, *there)]
    assert repair("OWN", ours, chain) == []


def test_a_missing_rule_comes_behind_the_one_before_it() -> None:
    """So a rule that somebody put at the end stays the last."""
    assert repair("OWN", OURS[:3], [OURS[0], OURS[2], THEIRS[0]]) == [f"-I OWN 2 {OURS[1]}"]
    assert repair("OWN", OURS[:1], THEIRS) == [f"-I OWN 1 {OURS[0]}"]
    assert repair("OWN", OURS[:2], [THEIRS[0], OURS[0]]) == [f"-I OWN 3 {OURS[1]}"]
