"""What grants let in, over many rules, against a model of a kernel that counts."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from envelope.firewall import Traffic
from envelope.firewall.kernel import Key
from envelope.firewall.reconcile.ledger import Ledger

ONE, OTHER = Key("203.0.113.7/32"), Key("203.0.113.7/32 1")
keys = st.sampled_from([ONE, OTHER])


def counted(packets: int, exact: bool = True) -> Traffic:
    return Traffic(packets, 100 * packets, exact)


def read(ledger: Ledger, number: int, counts: dict[Key, Traffic]) -> None:
    ledger.note(number, counts.items())
    ledger.finish(number)


def test_what_is_not_known_is_not_told() -> None:
    """Nothing was read, and nobody said what the rule had counted."""
    ledger = Ledger()
    ledger.written({ONE: 5}, ())
    assert ledger.traffic(ONE) is None
    ledger.written({ONE: None}, (ONE,))
    assert ledger.end(ONE) is None
    assert ledger.end(ONE) is None


def test_a_reading_that_failed_tells_nothing() -> None:
    """Neither that there was no traffic nor that there was as much as before."""
    ledger = Ledger()
    ledger.written({ONE: 5, OTHER: 5}, ())
    read(ledger, ledger.begin(), {ONE: counted(3), OTHER: counted(4)})
    assert ledger.traffic(ONE) == counted(3, exact=False)
    read(ledger, ledger.begin(), {ONE: counted(5)})
    assert ledger.traffic(OTHER) is None
    read(ledger, ledger.begin(), {})
    assert ledger.traffic(ONE) is None
    ledger.written({ONE: None}, (ONE,))
    assert ledger.end(ONE) == counted(5, exact=False)


def test_what_a_reading_showed_of_an_older_rule_is_left_out() -> None:
    """It was deleted, and counted, while the reading went on."""
    ledger = Ledger()
    ledger.written({ONE: 5}, ())
    number = ledger.begin()
    ledger.deleted([(ONE, counted(7))])
    ledger.written({ONE: 9}, ())
    read(ledger, number, {ONE: counted(6)})
    assert ledger.traffic(ONE) == counted(7, exact=False)


def test_a_grant_that_is_asked_for_as_it_is_counts_on() -> None:
    """Its rule stands, and a reading shows all that it has counted."""
    ledger = Ledger()
    ledger.written({ONE: 5}, ())
    read(ledger, ledger.begin(), {ONE: counted(7)})
    ledger.written({ONE: 5}, (), same={ONE})
    read(ledger, ledger.begin(), {ONE: counted(9)})
    assert ledger.traffic(ONE) == counted(9, exact=False)
    ledger.deleted([(ONE, counted(10))])
    ledger.written({ONE: None}, (ONE,))
    assert ledger.end(ONE) == counted(10, exact=False)


def test_a_rule_that_moves_is_counted_on() -> None:
    """It was replaced by itself; if its own end is not told, what it counted since is missing."""
    for told in (True, False):
        ledger = Ledger()
        ledger.written({ONE: 5}, ())
        ledger.deleted([(ONE, counted(3))])
        ledger.written({OTHER: 5}, ())
        read(ledger, ledger.begin(), {ONE: counted(2), OTHER: counted(0)})
        assert ledger.traffic(ONE) == counted(5, exact=False)
        if told:
            ledger.deleted([(ONE, counted(4))])
        ledger.written({ONE: None}, (ONE,))
        assert ledger.end(ONE) == counted(7 if told else 5, exact=told)
    ledger.written({ONE: 5}, ())
    ledger.deleted([(ONE, counted(0))])
    ledger.written({OTHER: 6}, ())
    ledger.written({ONE: None}, (ONE,))
    traffic = ledger.end(ONE)
    assert traffic is not None
    assert not traffic.exact
    assert not traffic.unused


def test_a_rule_that_ran_out_is_counted_as_of_the_last_reading() -> None:
    """The rule that was deleted in its place has counted less than was read."""
    ledger = Ledger()
    ledger.written({ONE: 5}, ())
    read(ledger, ledger.begin(), {ONE: counted(7)})
    ledger.deleted([(ONE, counted(0))])
    ledger.written({ONE: None}, (ONE,))
    assert ledger.end(ONE) == counted(7, exact=False)


def test_a_grant_that_another_caller_takes_over_begins_anew() -> None:
    """What was told to the first is not told again."""
    ledger = Ledger()
    ledger.written({ONE: 5}, ())
    read(ledger, ledger.begin(), {ONE: counted(7)})
    assert ledger.end(ONE) == counted(7, exact=False)
    ledger.deleted([(ONE, counted(9))])
    ledger.written({ONE: None}, (ONE,))
    assert ledger.end(ONE) == counted(2)


def test_a_rule_that_moved_and_stands_is_not_counted_to_its_end() -> None:
    """Neither is what another caller takes over known exactly, nor is it forgotten."""
    ledger = Ledger()
    ledger.written({ONE: 5}, ())
    ledger.deleted([(ONE, counted(0))])
    ledger.written({OTHER: 5}, ())
    traffic = ledger.end(ONE)
    assert traffic == counted(0, exact=False)
    assert not traffic.unused
    ledger.deleted([(ONE, counted(7))])
    ledger.written({ONE: 9}, ())
    ledger.deleted([(ONE, counted(0))])
    ledger.written({ONE: None}, (ONE,))
    traffic = ledger.end(ONE)
    assert traffic == counted(7)
    assert not traffic.unused


def test_where_deletions_were_lost_nothing_is_exact() -> None:
    """Also not what was told of one of a grant's rules."""
    ledger = Ledger()
    ledger.written({ONE: 5, OTHER: 5}, ())
    ledger.deleted([(ONE, counted(0))])
    ledger.doubt()
    ledger.written({ONE: None}, (ONE,))
    traffic = ledger.end(ONE)
    assert traffic == counted(0, exact=False)
    assert not traffic.unused
    ledger.deleted([(OTHER, counted(1))])
    ledger.written({OTHER: None}, (OTHER,))
    assert ledger.end(OTHER) == counted(1, exact=False)


class LedgerModel(RuleBasedStateMachine):
    """A kernel that counts, whose rules others delete, and whose messages may be lost."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        # What the rules that stand have counted; what was let in and told; what is surely known.
        self.rules: dict[Key, int] = {}
        self.let_in: dict[Key, int] = {}
        self.told: dict[Key, int] = {}
        self.certain: dict[Key, bool] = {}
        self.unheard: list[tuple[Key, Traffic]] = []

    def hear(self) -> None:
        heard, self.unheard = self.unheard, []
        self.ledger.deleted(heard)

    def delete(self, key: Key, silently: bool) -> None:
        number = self.rules.pop(key)
        if silently:
            self.certain[key] = False
        else:
            self.unheard.append((key, counted(number)))

    @rule(key=keys, silently=st.booleans())
    def write(self, key, silently):
        if key in self.rules:
            self.delete(key, silently)
        self.rules[key] = 0
        self.let_in.setdefault(key, 0)
        self.certain.setdefault(key, True)
        self.hear()
        self.ledger.written({key: 5}, ())

    @rule(key=keys)
    def move(self, key):
        if key in self.rules:
            self.delete(key, silently=False)
            self.rules[key] = 0
            self.hear()
            self.ledger.written({}, ())

    @rule(key=keys, packets=st.integers(1, 5))
    def packet(self, key, packets):
        if key in self.rules:
            self.rules[key] += packets
            self.let_in[key] += packets

    @rule(key=keys, silently=st.booleans())
    def others_delete(self, key, silently):
        if key in self.rules:
            self.delete(key, silently)
            self.hear()
            self.ledger.seen(self.rules.keys())

    @rule()
    def read(self):
        number = self.ledger.begin()
        self.hear()
        read(self.ledger, number, {key: counted(n) for key, n in self.rules.items()})

    @rule(key=keys)
    def taken_over(self, key):
        self.hear()
        traffic = self.ledger.end(key)
        if traffic is not None:
            self.told[key] = self.told.get(key, 0) + traffic.packets
            assert not traffic.exact or key not in self.rules
        if key not in self.rules:
            self.forget(key)

    @rule(key=keys, silently=st.booleans())
    @precondition(lambda self: self.rules)
    def revoke(self, key, silently):
        if key not in self.rules:
            return
        self.delete(key, silently)
        self.hear()
        self.ledger.written({key: None}, (key,))
        traffic = self.ledger.end(key)
        if traffic is not None:
            total = self.told.get(key, 0) + traffic.packets
            assert total <= self.let_in[key]
            assert traffic.bytes == 100 * traffic.packets
            assert not traffic.exact or total == self.let_in[key]
            assert not traffic.unused or self.let_in[key] == 0
        assert not self.certain[key] or (traffic is not None and traffic.exact)
        self.forget(key)

    def forget(self, key: Key) -> None:
        for each in (self.let_in, self.told, self.certain):
            each.pop(key, None)

    @invariant()
    def remembers_no_more_than_there_are(self):
        assert len(self.ledger._entries) <= len(self.let_in)


TestLedgerModel = LedgerModel.TestCase
