"""Whose rules are changed next; without kernel or clock."""

from __future__ import annotations

import pytest

from envelope.firewall.kernel import Key
from envelope.firewall.reconcile.backlog import MOST_AT_ONCE, MOST_OVERTAKEN, Backlog

KEYS = [Key(f"10.0.{n // 250}.{n % 250}/32") for n in range(10 * MOST_AT_ONCE)]


def filled(keys: list[Key] = KEYS) -> Backlog:
    backlog = Backlog()
    backlog.add(keys)
    return backlog


def test_everything_goes_into_few_transactions_in_the_order_of_coming() -> None:
    backlog = filled()
    taken = []
    while backlog:
        taken.append(backlog.take(()))
    assert [len(keys) for keys in taken] == [MOST_AT_ONCE] * 10
    assert taken[0] == set(KEYS[:MOST_AT_ONCE])


def test_who_waits_to_be_let_in_does_not_wait_for_thousands() -> None:
    """Half a transaction is for them; the other half goes on with the rest."""
    backlog = filled()
    eager = KEYS[-MOST_AT_ONCE:]
    keys = backlog.take(eager)
    assert set(eager[: MOST_AT_ONCE // 2]) <= keys
    assert set(KEYS[: MOST_AT_ONCE // 2]) <= keys
    assert len(keys) == MOST_AT_ONCE


def test_suspects_do_not_go_ahead() -> None:
    """They are tried alone, behind those who are not suspected."""
    backlog = filled(KEYS[:2])
    backlog.suspect({KEYS[0]})
    assert backlog.take([KEYS[0]]) == {KEYS[1]}
    assert backlog.take([KEYS[0]]) == {KEYS[0]}


def test_nobody_is_eager_whose_rules_are_as_wanted() -> None:
    assert filled(KEYS[:1]).take(KEYS[5:9]) == {KEYS[0]}


def test_those_of_a_failed_transaction_are_tried_alone_and_last() -> None:
    backlog = filled(KEYS[:3])
    backlog.failed(backlog.take(()))
    backlog.add([KEYS[7]])
    assert backlog.take(KEYS[:3]) == {KEYS[7]}
    assert sorted(len(backlog.take(())) for _ in range(3)) == [1, 1, 1]
    assert not backlog


def test_one_that_failed_alone_twice_waits_for_the_retry() -> None:
    """The first time may have been the tool's last, and the next one may well work."""
    backlog = filled(KEYS[:1])
    assert backlog.failed(backlog.take(())) == set()
    assert backlog.failed(backlog.take(())) == {KEYS[0]}
    assert not backlog
    assert backlog.is_troubled


def test_one_that_took_long_to_fail_is_not_tried_at_once() -> None:
    backlog = filled(KEYS[:1])
    assert backlog.failed(backlog.take(()), timed_out=True) == {KEYS[0]}
    assert backlog.is_troubled
    assert backlog.surprising({KEYS[0], KEYS[1]}) == {KEYS[1]}
    backlog.add([KEYS[0]])
    backlog.put_off(KEYS[0])
    assert not backlog
    backlog.retry()
    assert backlog.take(()) == {KEYS[0]}


@pytest.mark.parametrize("mending", [False, True])
def test_what_a_failed_transaction_may_have_changed_is_no_surprise_to_the_next_look(
    mending,
) -> None:
    """Even if it has succeeded since: it may have been written twice."""
    backlog = filled(KEYS[:1])
    if mending:
        backlog.suspect(backlog.take_differing({KEYS[0]}))
    else:
        backlog.failed(backlog.take(()))
        backlog.take(())
    backlog.succeeded({KEYS[0]})
    assert backlog.surprising({KEYS[0], KEYS[1]}) == {KEYS[1]}
    backlog.take_differing({KEYS[0]})
    assert backlog.surprising({KEYS[0]}) == {KEYS[0]}


def test_what_a_look_found_is_changed_at_once() -> None:
    """However much it is; those that are suspected, or postponed, are not among them."""
    backlog = filled(KEYS[:1])
    backlog.failed(backlog.take(()), timed_out=True)
    first = backlog.take_differing(set(KEYS))
    assert first == set(KEYS[1:])
    assert not backlog
    backlog.retry()
    assert backlog.take(()) == {KEYS[0]}


def test_a_suspect_that_a_look_finds_as_wanted_is_none_any_more() -> None:
    backlog = filled(KEYS[:2])
    backlog.failed(backlog.take(()))
    assert backlog.is_troubled
    backlog.take_differing({KEYS[1]})
    assert backlog.is_troubled
    backlog.take_differing(set())
    assert not backlog.is_troubled
    backlog.add(KEYS[:2])
    assert len(backlog.take(())) == 2


def test_a_suspect_has_its_turn_however_many_others_come() -> None:
    """At the latest behind so many transactions of theirs."""
    backlog = filled(KEYS[:1])
    backlog.failed(backlog.take(()))
    taken = []
    for number in range(MOST_OVERTAKEN + 1):
        backlog.add([KEYS[10 + number]])
        taken.append(backlog.take([KEYS[10 + number]]))
    assert {KEYS[0]} in taken
    backlog.succeeded({KEYS[0]})
    assert not backlog.is_troubled
