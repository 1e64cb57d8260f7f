"""What is wanted of a table, and which networks each change concerns; without kernel or clock."""

from __future__ import annotations

from envelope.firewall.kernel import EVERYONE, Key
from envelope.firewall.reconcile.wanted import Wanted

ONE, OTHER = Key("10.0.0.1/32"), Key("10.0.0.2/32")


class Table:
    """Grants that say nothing but their end, by a clock that may be stepped."""

    def __init__(self) -> None:
        self.stepped = 0.0

    def written(self, key: Key, end: float) -> str:
        return str(int(end + self.stepped))


def wanted_by(proxies: bool = False, table: Table | None = None) -> Wanted[str]:
    made = Wanted((table or Table()).written)
    made.proxies = proxies
    return made


def test_a_grant_is_wanted_until_it_is_revoked() -> None:
    wanted = wanted_by()
    assert wanted.allow(ONE, 5) == [ONE]
    assert wanted.granted({ONE, OTHER}) == {ONE}
    assert wanted.get(ONE) == "5"
    assert wanted.revoke(ONE) == [ONE]
    assert wanted.get(ONE) is None
    assert wanted.granted({ONE}) == set()


def test_a_renewal_that_cannot_be_made_leaves_what_was_granted() -> None:
    wanted = wanted_by()
    wanted.allow(ONE, 5)
    assert wanted.confirm(ONE)
    wanted.allow(ONE, 9)
    assert wanted.fall_back(ONE) == [ONE]
    assert wanted.get(ONE) == "5"


def test_an_earlier_end_that_cannot_be_made_yet_is_still_wanted() -> None:
    wanted = wanted_by(proxies=True)
    wanted.allow(ONE, 9)
    wanted.confirm(ONE)
    wanted.allow(ONE, 5)
    assert wanted.fall_back(ONE) == []
    assert wanted.get(ONE) == wanted.get(EVERYONE[4]) == "5"


def test_a_grant_that_never_was_in_force_leaves_nothing() -> None:
    wanted = wanted_by()
    wanted.allow(ONE, 5)
    wanted.fall_back(ONE)
    assert wanted.get(ONE) is None
    assert not wanted.confirm(ONE)


def test_what_was_revoked_does_not_come_back() -> None:
    wanted = wanted_by()
    wanted.allow(ONE, 5)
    wanted.confirm(ONE)
    wanted.revoke(ONE)
    wanted.allow(ONE, 9)
    wanted.fall_back(ONE)
    assert wanted.get(ONE) is None


def test_everyone_is_let_in_until_the_latest_end_of_the_family() -> None:
    wanted = wanted_by(proxies=True)
    assert wanted.allow(ONE, 5) == [ONE, EVERYONE[4]]
    wanted.allow(OTHER, 9)
    assert wanted.get(EVERYONE[4]) == "9"
    wanted.revoke(OTHER)
    assert wanted.get(EVERYONE[4]) == "5"
    wanted.revoke(ONE)
    assert wanted.get(EVERYONE[4]) is None
    assert wanted.get(EVERYONE[6]) is None


def test_all_grants_are_written_anew_when_the_clock_was_stepped() -> None:
    """With the ends that they have; what was confirmed keeps its own too."""
    table = Table()
    wanted = wanted_by(proxies=True, table=table)
    wanted.allow(ONE, 5)
    wanted.confirm(ONE)
    wanted.allow(OTHER, 8)
    assert wanted.rewrite() == []
    table.stepped = 7
    assert set(wanted.rewrite()) == {ONE, OTHER, EVERYONE[4]}
    assert wanted.get(ONE) == "12"
    assert wanted.get(OTHER) == wanted.get(EVERYONE[4]) == "15"
    wanted.allow(ONE, 6)
    wanted.fall_back(ONE)
    assert wanted.get(ONE) == "12"


def test_nothing_is_wanted_after_the_end() -> None:
    wanted = wanted_by()
    wanted.allow(ONE, 5)
    wanted.clear()
    assert wanted.get(ONE) is None
    assert wanted.differing({ONE: "5"}) == {ONE}
    assert not wanted.confirm(ONE)
