"""What the kernel tells of iptables-nft's rules, and what iptables-save prints of any."""

from __future__ import annotations

from envelope.firewall import Traffic
from envelope.firewall.iptables.counters import RuleCounters, counts_in, together
from envelope.firewall.kernel import Key

# Rules that were deleted, as Linux 6.18 told it: one packet from 127.0.0.1, and one from ::1.
FOUR = bytes.fromhex(
    "0200000c0b00010066696c746572000014000200454e56454c4f50452d4752414e5453000c000300000000000000"
    "0006e4000400340001000c0001007061796c6f616400240002000800010000000001080002000000000108000300"
    "0000000c08000400000000042c00010008000100636d700020000200080001000000000108000200000000000c00"
    "0300080001007f0000012c0001000c000100636f756e746572001c0002000c000100000000000000001d0c000200"
    "0000000000000001540001000e000100696d6d656469617465000000400002000800010000000000340002003000"
    "020008000100fffffffd21000200454e56454c4f50452d454e442d32303236313132385432313033303400000000"
)
SIX = bytes.fromhex(
    "0a00000d0b00010066696c746572000014000200454e56454c4f50452d4752414e5453000c000300000000000000"
    "0006f0000400340001000c0001007061796c6f616400240002000800010000000001080002000000000108000300"
    "0000000808000400000000103800010008000100636d70002c000200080001000000000108000200000000001800"
    "030014000100000000000000000000000000000000012c0001000c000100636f756e746572001c0002000c000100"
    "00000000000000310c0002000000000000000001540001000e000100696d6d656469617465000000400002000800"
    "010000000000340002003000020008000100fffffffd21000200454e56454c4f50452d454e442d32303236313132"
    "385432313033303400000000"
)
# Of 203.0.112.0/20 and a range of ports, in the chain of another service; and one that leads there.
OTHER_SERVICE = bytes.fromhex(
    "0200000f0b00010066696c746572000017000200454e56454c4f50452d4752414e54532d533200000c0003000000"
    "000000000007f001040024000100090001006d657461000000001400020008000200000000100800010000000001"
    "2c00010008000100636d700020000200080001000000000108000200000000000c00030005000100060000003400"
    "01000c0001007061796c6f6164002400020008000100000000010800020000000001080003000000000c08000400"
    "000000044c0001000c00010062697477697365003c00020008000100000000010800020000000001080003000000"
    "000408000600000000000c00040008000100fffff0000c00050008000100000000002c00010008000100636d7000"
    "20000200080001000000000108000200000000000c00030008000100cb007000340001000c0001007061796c6f61"
    "64002400020008000100000000010800020000000002080003000000000208000400000000023c0001000a000100"
    "72616e67650000002c000200080001000000000108000200000000000c00030006000100005000000c0004000600"
    "0100005a00002c0001000c000100636f756e746572001c0002000c00010000000000000000000c00020000000000"
    "00000000540001000e000100696d6d65646961746500000040000200080001000000000034000200300002000800"
    "0100fffffffd21000200454e56454c4f50452d454e442d32303236313132385432313033303400000000"
)
LEADS = bytes.fromhex(
    "020000110b00010066696c746572000014000200454e56454c4f50452d4752414e5453000c000300000000000000"
    "0008d8000400340001000c0001007061796c6f616400240002000800010000000001080002000000000108000300"
    "0000000c08000400000000032c00010008000100636d700020000200080001000000000108000200000000000c00"
    "030007000100cb0071002c0001000c000100636f756e746572001c0002000c00010000000000000000000c000200"
    "0000000000000000480001000e000100696d6d656469617465000000340002000800010000000000280002002400"
    "020008000100fffffffd17000200454e56454c4f50452d4752414e54532d53320000"
)


def test_what_a_kernel_tells_is_read() -> None:
    """The counters of grants, of one's own address family alone."""
    four, six = RuleCounters(4), RuleCounters(6)
    assert four.read(FOUR, 32) == (Key("127.0.0.1/32"), Traffic(1, 29, True))
    assert six.read(SIX, 128) == (Key("::1/128"), Traffic(1, 49, True))
    assert four.read(SIX, 32) is None
    assert six.read(FOUR, 128) is None
    assert four.read(OTHER_SERVICE, 20) == (Key("203.0.112.0/20 2"), Traffic(0, 0, True))
    assert four.read(LEADS, 24) is None


def test_other_tables_and_chains_are_not_ours() -> None:
    four = RuleCounters(4)
    assert four.read(FOUR.replace(b"filter", b"mangle"), 32) is None
    assert four.read(FOUR.replace(b"ENVELOPE-GRANTS", b"ENVELOPE-OTHERS"), 32) is None
    assert four.read(bytes((2, 0, 0, 0)), 32) is None


def test_a_rule_of_others_may_compare_more_than_an_address() -> None:
    """As nft writes `ip saddr 127.0.0.1 ip daddr 8.8.8.8`: in one comparison."""
    size, compared = bytes.fromhex("e4000400"), bytes.fromhex(
        "2c00010008000100636d700020000200080001000000000108000200000000000c000300080001007f000001")
    assert (FOUR.count(size), FOUR.count(compared)) == (1, 1)
    rule = FOUR.replace(size, bytes.fromhex("e8000400")).replace(compared, bytes.fromhex(
        "3000010008000100636d70002400020008000100000000010800020000000000100003000c0001007f000001"
        "08080808"))
    assert RuleCounters(4).read(rule, 32) is None


END = "ENVELOPE-END-20261128T210304"
SAVED = f"""\
*filter
:INPUT DROP [10:840]
:ENVELOPE-GRANTS - [0:0]
[9:756] -A ENVELOPE-GRANTS -s 203.0.113.7/32 -p tcp -m tcp --dport 80 -j {END}
[1:84] -A ENVELOPE-GRANTS -s 203.0.113.7/32 -p udp -m udp --dport 80 -j {END}
[2:168] -A ENVELOPE-GRANTS -j RETURN
[3:252] -A ENVELOPE-GRANTS-S1 -s 203.0.113.7/32 -j {END}
[4:336] -A {END} -m time --datestop 2026-11-28T21:03:04 -j ACCEPT
[5:420] -A FORWARD -s 203.0.113.7/32 -j ACCEPT
COMMIT
"""


def test_what_iptables_save_prints_is_read() -> None:
    """A grant's rules together, whatever else is there."""
    assert together(counts_in(SAVED.splitlines(), 4)) == {
        Key("203.0.113.7/32"): Traffic(10, 840, False),
        Key("203.0.113.7/32 1"): Traffic(3, 252, False),
    }


def test_the_usual_message_is_read_as_any_other() -> None:
    """Whichever of its bytes is another one; with a shorter prefix every attribute is parsed.

    But for the length of the chain's name, which its last byte tells as well.
    """
    for version, bits, message in ((4, 32, FOUR), (6, 128, SIX)):
        counters = RuleCounters(version)
        assert counters._usual.match(message)
        length = message.index(b"ENVELOPE-GRANTS") - 4
        for place in {*range(len(message))} - {length, length + 1}:
            for flipped in (1, 0x80, 0xFF):
                changed = bytearray(message)
                changed[place] ^= flipped
                found, in_full = (counters.read(bytes(changed), each) for each in (bits, 8))
                if in_full is not None:
                    key, traffic = in_full
                    in_full = Key(key.replace("/8", f"/{bits}")), traffic
                assert found == in_full, place
