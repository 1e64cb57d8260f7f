"""Pauses between moves of our jump that another program undoes."""

from __future__ import annotations

from itertools import pairwise

from envelope.firewall.reconcile.contest import AT_ONCE, LONGEST_PAUSE, QUIET, Contest

LOOK = 10.0


def moves(contest: Contest, rival: float, begin: float, end: float) -> list[float]:
    """The times of our moves, when another program comes first again `rival` seconds after each."""
    made: list[float] = []
    now, back = begin, begin
    while now < end:
        if contest.found(now >= back, now):
            contest.moved(now)
            made.append(now)
            back = now + rival
        now += LOOK
    return made


def test_moves_are_made_at_once_and_then_after_pauses_that_grow() -> None:
    for rival in (0.0, 15.0, 90.0):
        contest = Contest()
        made = moves(contest, rival, 0.0, 4000.0)
        gaps = [later - earlier for earlier, later in pairwise(made)]
        assert max(gaps[:AT_ONCE - 1]) <= max(rival + LOOK, LOOK)
        assert gaps == sorted(gaps)
        assert LONGEST_PAUSE <= gaps[-1] <= LONGEST_PAUSE + LOOK
        assert contest.is_on


def test_what_happens_now_and_then_is_no_contest() -> None:
    """Each change that stands for two minutes begins a new row."""
    contest = Contest()
    made = moves(contest, QUIET + 2 * LOOK, 0.0, 4000.0)
    assert len(made) > 20
    assert not contest.is_on


def test_a_row_ends_when_the_other_gives_in() -> None:
    contest = Contest()
    moves(contest, 0.0, 0.0, 2000.0)
    assert contest.is_on
    moves(contest, 1e9, 2000.0, 4000.0)
    assert not contest.is_on
