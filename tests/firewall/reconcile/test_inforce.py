"""What is in force, counted by address family."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from envelope.firewall.kernel import EVERYONE, NO_CLIENTS, Key, version_of
from envelope.firewall.reconcile.inforce import InForce

KEYS = st.sampled_from([
    *EVERYONE.values(), *(Key(f"10.0.0.{n}/32") for n in range(4)),
    *(Key(f"2001:db8::{n}/128") for n in range(4)),
])
RULES = st.sampled_from([None, "one", "two"])
STEPS = st.lists(st.one_of(
    st.tuples(KEYS, RULES), st.dictionaries(KEYS, st.just("one"), max_size=6),
), max_size=12)


@given(steps=STEPS)
def test_networks_are_counted_whatever_comes_and_goes(steps) -> None:
    """One by one or all at once; everyone, who is no client, aside."""
    grants = InForce()
    model: dict[Key, str | None] = {}
    for step in steps:
        if isinstance(step, dict):
            grants.replace(step)
            model = dict(step)
        else:
            grants.note([step])
            model[step[0]] = step[1]
        model = {key: grant for key, grant in model.items() if grant}
        assert grants == model
        for version in EVERYONE:
            clients = [key for key in model.keys() - NO_CLIENTS if version_of(key) == version]
            assert grants.count(version) == len(clients)


def test_what_is_wanted_and_in_force_is_told_in_the_same_order() -> None:
    """Also when it was written in another one; what is not wanted comes last."""
    one, two, three = (Key(f"10.0.0.{n}/32") for n in range(3))
    grants: InForce[str] = InForce()
    for key in (three, two, one):
        grants.note([(key, "one")])
    wanted, held = grants.beside({one: "one", two: "two"})
    assert [*wanted.items()] == [(one, "one"), (two, "two")]
    assert [*held.items()] == [(one, "one"), (two, "one"), (three, "one")]
