"""What is wanted of a table, and which networks a wish changes; without kernel or clock."""

from __future__ import annotations

from typing import Any

from envelope.firewall.kernel import EVERYONE, Key, Rules
from envelope.firewall.policy import LATEST_END
from envelope.firewall.reconcile.wanted import Wishes

ONE, OTHER = Key("10.0.0.1/32"), Key("10.0.0.2/32")


class Table:
    """Rules that say nothing but their end."""

    def rules(self, key: Key, end: int) -> Rules:
        return (str(end),)

    def end_of(self, rules: Rules) -> int | None:
        return int(rules[0]) if rules else None


def wishes(proxies: bool = False) -> Wishes:
    table: Any = Table()
    made = Wishes(table)
    made.proxies = proxies
    return made


def test_a_wish_is_there_until_it_is_taken_back() -> None:
    wanted = wishes()
    assert wanted.allow(ONE, 5) == [ONE]
    assert wanted.wanted({ONE, OTHER}) == {ONE}
    assert wanted.get(ONE) == ("5",)
    assert wanted.revoke(ONE) == [ONE]
    assert wanted.get(ONE) == ()
    assert wanted.get(ONE) == ()


def test_a_renewal_that_cannot_be_made_leaves_what_was_granted() -> None:
    wanted = wishes()
    wanted.allow(ONE, 5)
    assert wanted.fulfilled(ONE)
    wanted.allow(ONE, 9)
    assert wanted.fall_back(ONE) == [ONE]
    assert wanted.get(ONE) == ("5",)


def test_an_earlier_end_that_cannot_be_made_yet_is_still_wanted() -> None:
    wanted = wishes(proxies=True)
    wanted.allow(ONE, 9)
    wanted.fulfilled(ONE)
    wanted.allow(ONE, 5)
    assert wanted.fall_back(ONE) == []
    assert wanted.get(ONE) == wanted.get(EVERYONE[4]) == ("5",)


def test_a_grant_that_never_was_in_force_leaves_nothing() -> None:
    wanted = wishes()
    wanted.allow(ONE, 5)
    wanted.fall_back(ONE)
    assert wanted.get(ONE) == ()
    assert not wanted.fulfilled(ONE)


def test_what_was_revoked_does_not_come_back() -> None:
    wanted = wishes()
    wanted.allow(ONE, 5)
    wanted.fulfilled(ONE)
    wanted.revoke(ONE)
    wanted.allow(ONE, 9)
    wanted.fall_back(ONE)
    assert wanted.get(ONE) == ()


def test_everyone_is_let_in_until_the_latest_end_of_the_family() -> None:
    wanted = wishes(proxies=True)
    assert wanted.allow(ONE, 5) == [ONE, EVERYONE[4]]
    wanted.allow(OTHER, 9)
    assert wanted.get(EVERYONE[4]) == ("9",)
    wanted.revoke(OTHER)
    assert wanted.get(EVERYONE[4]) == ("5",)
    wanted.revoke(ONE)
    assert wanted.get(EVERYONE[4]) == ()
    assert wanted.get(EVERYONE[6]) == ()


def test_all_ends_move_with_the_clock_and_none_beyond_what_the_kernel_can_count() -> None:
    wanted = wishes(proxies=True)
    wanted.allow(ONE, 5)
    wanted.fulfilled(ONE)
    wanted.allow(OTHER, LATEST_END)
    assert set(wanted.move(7)) == {ONE, OTHER, EVERYONE[4]}
    assert wanted.get(ONE) == ("12",)
    assert wanted.get(OTHER) == wanted.get(EVERYONE[4]) == (str(LATEST_END),)
    wanted.fall_back(ONE)
    assert wanted.get(ONE) == ("12",)
