"""The latest of many ends, against a plain dictionary."""

from hypothesis import given
from hypothesis import strategies as st

from envelope.deadlines import Latest
from envelope.firewall.kernel import EVERYONE, Key
from envelope.firewall.reconcile.inforce import Grants

# Few names, which are gone through, and many, which are kept in order.
NAMES = st.one_of(st.sampled_from("abcd"), st.sampled_from("abcdefghijklmnopqrstuvwxyz"))
KEYS = st.sampled_from([
    Key("203.0.113.7/32"), Key("203.0.113.8/32"), Key("2001:db8::/64"), *EVERYONE.values()
])


@given(steps=st.lists(st.tuples(NAMES, st.one_of(st.none(), st.integers(0, 20))), max_size=300))
def test_it_always_knows_the_latest_end(steps) -> None:
    """Ends that come, move in either direction, and go."""
    latest: Latest[int] = Latest()
    model: dict[str, int] = {}
    for name, end in steps:
        if end is None:
            latest.drop(name)
            model.pop(name, None)
        else:
            latest.put(name, end)
            model[name] = end
        assert latest.end == max(model.values(), default=None)
        assert set(latest) == set(model)
        assert len(latest) == len(model)


def test_it_does_not_grow_with_what_is_over() -> None:
    """An end that moves a thousand times under a later one is one end, among few and many."""
    latest: Latest[int] = Latest()
    latest.put("last", 10_000)
    for end in range(5_000):
        latest.put("busy", end)
    assert latest._heap is None
    for number in range(20):
        latest.put(f"other {number}", number)
    for end in range(5_000):
        latest.put("busy", end)
    assert latest._heap is not None
    assert len(latest._heap) < 200
    assert latest.end == 10_000


@given(steps=st.lists(st.tuples(KEYS, st.booleans()), max_size=30), again=st.booleans())
def test_grants_are_counted_by_family_without_everyones(steps, again) -> None:
    """Put and taken away in any order, or replaced as a whole."""
    grants = Grants()
    for key, there in steps:
        grants.put(key, ("a rule",) if there else ())
    if again:
        grants.replace(dict(grants))
    own = [key for key in grants if key not in EVERYONE.values()]
    assert grants.networks == {
        4: sum(":" not in key for key in own), 6: sum(":" in key for key in own)
    }
