"""The latest of many deadlines, against a plain dictionary."""

from hypothesis import given
from hypothesis import strategies as st

from envelope.deadlines import LatestDeadline

# Few names, which need no heap, and many, which do.
NAMES = st.one_of(st.sampled_from("abcd"), st.sampled_from("abcdefghijklmnopqrstuvwxyz"))


@given(steps=st.lists(st.tuples(NAMES, st.one_of(st.none(), st.integers(0, 20))), max_size=300))
def test_the_latest_deadline_is_known_after_every_change(steps) -> None:
    """Deadlines are added, moved in either direction, and removed."""
    deadlines = LatestDeadline()
    model: dict[str, int] = {}
    for name, end in steps:
        if end is None:
            deadlines.drop(name)
            model.pop(name, None)
        else:
            deadlines.put(name, end)
            model[name] = end
        assert deadlines.latest == max(model.values(), default=None)
        assert len(deadlines) == len(model)


def test_outdated_entries_do_not_gather() -> None:
    """A deadline that moves many times below a later one; among few deadlines and among many."""
    deadlines = LatestDeadline()
    deadlines.put("last", 10_000)
    for end in range(5_000):
        deadlines.put("busy", end)
    assert deadlines._heap is None
    for number in range(20):
        deadlines.put(f"other {number}", number)
    for end in range(5_000):
        deadlines.put("busy", end)
    assert deadlines._heap is not None
    assert len(deadlines._heap) < 200
    assert deadlines.latest == 10_000
