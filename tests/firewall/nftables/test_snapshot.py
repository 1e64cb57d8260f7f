"""What nft prints, read back: rules with their handles, elements piece by piece."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envelope.firewall.cooperate import SLICE
from envelope.firewall.errors import UnreadableRules
from envelope.firewall.kernel import EVERYONE, Key
from envelope.firewall.nftables.grants import (
    EARLIER,
    LATER,
    NEVER,
    Reading,
    certain,
    grants_in,
    seconds,
)
from envelope.firewall.nftables.rules import Structure, change_elements, duration
from envelope.firewall.nftables.snapshot import Chain, NftSnapshot, Rule, SetShown
from envelope.firewall.policy import RuleChoices
from tests.firewall.nftables.test_plan import LAYOUT, installed, seen
from tests.support.callcounter import CallCounter
from tests.support.fakenft import FakeNft
from tests.support.generatorsteps import run_steps

NOW = 1000.0
PRINTED = """\
table inet envelope { # handle 2
	flags dormant

	set grants4 { # handle 5
		type ipv4_addr
		flags timeout
		elements = { 203.0.113.7 timeout 1m4s expires 59s980ms comment "a, b } expires 1s",
                         203.0.113.8,
                         203.0.113.9 timeout 1d1h1m1s500ms expires 1d1h1m1s480ms }
	}

	set grants6 { # handle 6
		type ipv6_addr
		flags timeout
		elements = { ::ffff:1.2.3.4 counter packets 1 bytes 2 timeout 5s expires 4s }
	}

	set proxies { # handle 7
		type nf_proto
		elements = { ipv4 timeout 1m expires 59s980ms, 7 timeout 9s expires 1s }
	}

	counter theirs { # handle 9
		packets 0 bytes 0
	}

	chain input { # handle 4
		comment "ours"
		type filter hook input priority filter; policy drop;
		ip saddr 9.9.9.9 comment "} # handle 3" # handle 30
		ip saddr { 9.9.9.1, 9.9.9.2,
               9.9.9.3 } drop # handle 31
		jump baseline # handle 28
	}
}
"""


def read(text: str, in_force: dict[Key, tuple[str, ...]], now: float = NOW,
         choices: RuleChoices = LAYOUT) -> dict[Key, tuple[str, ...]]:
    return run_steps(grants_in(NftSnapshot.parse(text), Reading(choices, now, now, in_force)))


def test_what_nft_prints_is_read() -> None:
    """With comments that look like something else, and objects of others."""
    snapshot = NftSnapshot.parse(PRINTED)
    assert snapshot.exists
    assert snapshot.flags == ("flags dormant",)
    assert list(snapshot.sets) == ["grants4", "grants6", "proxies"]
    assert snapshot.sets["grants4"].declaration == ("type ipv4_addr", "flags timeout")
    assert snapshot.chains["input"] == Chain(
        "type filter hook input priority filter; policy drop;",
        (Rule('ip saddr 9.9.9.9 comment "} # handle 3"', 30),
         Rule("ip saddr { 9.9.9.1, 9.9.9.2,\n9.9.9.3 } drop", 31), Rule("jump baseline", 28)),
    )
    # Python writes it as ::ffff:102:304, and from 3.13 on as ::ffff:1.2.3.4.
    mapped = Key(str(ip_network("::ffff:1.2.3.4/128")))
    assert read(PRINTED, {}) == {
        Key("203.0.113.7/32"): float(1060), Key("203.0.113.8/32"): NEVER,
        Key("203.0.113.9/32"): float(91061), mapped: float(1004),
        EVERYONE[4]: float(1060),
    }


@pytest.mark.parametrize("text", [
    "table ip filter {\n}\n", "nonsense", PRINTED[:300], PRINTED[:-2],
    "table inet envelope { # handle 2\n\tchain x {\n",
])
def test_what_nft_does_not_print_is_not_read(text) -> None:
    """Other tables, and half of ours."""
    with pytest.raises(UnreadableRules):
        NftSnapshot.parse(text)
    assert not NftSnapshot.of(b"").exists


def test_elements_that_cannot_be_read_are_no_grants() -> None:
    """Rather than a part of them."""
    with pytest.raises(UnreadableRules, match="set grants4"):
        read(PRINTED.replace("203.0.113.8,", "203.0.113.8, ,"), {})
    odd = PRINTED.replace("203.0.113.8,", "10.0.0.0/8, www-data, 10.0.0.1-10.0.0.9,")
    assert Key("203.0.113.9/32") in read(odd, {})
    assert len(read(odd, {})) == 4


@given(st.integers(1, 10**12))
def test_times_are_read_as_they_are_written(milliseconds) -> None:
    """`1d2h3m4s5ms`, without the parts that are 0."""
    assert seconds(duration(milliseconds)) == pytest.approx(milliseconds / 1000)
    assert not re.search(r"\d{9}", duration(milliseconds))


@pytest.mark.parametrize("text", ["", "5", "s5", "5m5", "1s1m", "-1s"])
def test_what_is_no_time_is_refused(text) -> None:
    """Rather than read as something else."""
    with pytest.raises(UnreadableRules, match="is no time"):
        seconds(text)


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


def key_of(address: IPv4Address | IPv6Address) -> Key:
    return Key(f"{address}/{address.max_prefixlen}")


@given(ends=st.dictionaries(addresses.map(key_of), st.integers(1, 10**7), max_size=30))
def test_grants_are_read_back_as_they_were_written(ends) -> None:
    """All of them, as the very values that were written."""
    model, _ = installed(Structure(LAYOUT))
    model.apply(change_elements((key, (end - 1) * 1000 + 1) for key, end in ends.items()))
    in_force = {key: float(int(NOW) + end) for key, end in ends.items()}
    found = read(model.printed(), in_force)
    assert found == in_force
    assert all(found[key] is end for key, end in in_force.items())


@pytest.mark.parametrize(("away", "same"), [
    (0, True), (-LATER + 1, True), (EARLIER - 0.5, True), (-LATER - 2, False), (EARLIER + 2, False),
])
def test_an_end_somewhere_else_is_another_end(away, same) -> None:
    """Within what reading and writing take it is the one that was asked for."""
    key = Key("203.0.113.7/32")
    model = FakeNft()
    model.apply(["add table inet envelope",
                 "add set inet envelope grants4 { type ipv4_addr; flags timeout; }",
                 *change_elements([(key, 60_000)])])
    asked = float(round(NOW + 60 + away))
    assert (read(model.printed(), {key: asked})[key] is asked) is same


def test_a_grant_that_has_ended_by_itself_is_as_it_was_written() -> None:
    """And one that is gone before its time is gone."""
    model, _ = installed(Structure(LAYOUT))
    over, gone = Key("203.0.113.7/32"), Key("203.0.113.8/32")
    in_force = {over: float(int(NOW)), gone: float(int(NOW) + 60)}
    assert read(model.printed(), in_force) == {over: float(int(NOW))}
    assert seen(model).sets["grants4"].elements == ""


def test_what_ends_meanwhile_is_in_doubt() -> None:
    """Deleting an element that has just run out would fail; one that never ends is there."""
    for_long, ending_soon, for_ever, nobody = (Key(f"203.0.113.{n}/32") for n in range(4))
    in_force = {
        for_long: float(int(NOW + LATER) + 2), ending_soon: float(int(NOW + LATER)),
        for_ever: NEVER,
    }
    assert certain([for_long, ending_soon, for_ever, nobody], in_force, NOW) == {
        for_long: True, for_ever: True, nobody: False,
    }


def test_many_are_read_in_pieces() -> None:
    """So that nobody waits for all of them."""
    model, _ = installed(Structure(LAYOUT))
    model.apply(change_elements(
        (Key(f"10.0.{n >> 8}.{n & 255}/32"), 60_000) for n in range(3 * SLICE)))
    reading = Reading(LAYOUT, NOW, NOW, {})
    sizes: list[int] = []
    found = run_steps(grants_in(seen(model), reading), sizes)
    assert sizes == [SLICE, SLICE, SLICE]
    assert len(found) == 3 * SLICE


def steps_for_each(left: str) -> float:
    counted = []
    for number in (100, 300):
        keys = [Key(f"10.0.{n >> 8}.{n & 255}/32") for n in range(number)]
        model, _ = installed(Structure(LAYOUT))
        model.apply(change_elements((key, 60_000) for key in keys))
        printed = model.printed().replace("expires 60000ms", f"expires {left}")
        shown = NftSnapshot.parse(printed)
        steps = grants_in(shown, Reading(LAYOUT, NOW, NOW, dict.fromkeys(keys, float(1060))))
        with CallCounter() as work:
            run_steps(steps)
        counted.append(work.calls + sum(work.builtin.values()))
    return (counted[1] - counted[0]) / 200


def test_an_element_as_we_write_it_costs_a_few_steps() -> None:
    """All of them are looked at, since the kernel counts their ends down."""
    for left, steps in (("59s", 3), ("59s120ms", 3), ("1m", 6), ("1m120ms", 7)):
        assert steps_for_each(left) <= steps


@given(st.dictionaries(
    st.integers(1, 254), st.tuples(st.integers(1, 200_000_000), st.integers(-12_000, 12_000)),
    min_size=1, max_size=5,
))
def test_who_is_not_read_with_care_is_read_as_well(elements: dict[int, tuple[int, int]]) -> None:
    """Elements that are all as we write them, and the same beside one that is not."""
    reading = Reading(LAYOUT, NOW, NOW + 1, {
        Key(f"203.0.113.{n}/32"): float(round(NOW + (left + off) / 1000))
        for n, (left, off) in elements.items()
    })
    plain = ", ".join(
        f"203.0.113.{n} timeout 1d expires {duration(left)}" for n, (left, _) in elements.items()
    )
    odd = f"{plain}, 203.0.113.0 timeout 1d expires 1d comment \"odd\""
    quick, careful = (
        run_steps(grants_in(NftSnapshot(True, (), {"grants4": SetShown((), text + " }")}), reading))
        for text in (plain, odd)
    )
    assert careful.pop(Key("203.0.113.0/32"))
    assert quick == careful
