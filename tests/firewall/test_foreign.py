"""Rules of others before our jump: what they do, and where the jump belongs."""

from __future__ import annotations

import pytest

from envelope.addresses import PortRange
from envelope.config import Config
from envelope.firewall.foreign import Effect, Judge, Verdict
from envelope.firewall.iptables import head
from envelope.firewall.iptables.plan import install, mend, moved, remove
from envelope.firewall.iptables.snapshot import PARTIAL, Snapshot
from envelope.firewall.iptables.structure import Structure, before
from envelope.firewall.nftables import head as nfthead
from envelope.firewall.policy import IPV4, RuleChoices
from tests.support.fakeiptables import FakeFilterTable

SHUTS, RETURNS = Effect(Verdict.SHUTS), Effect(Verdict.RETURNS)
OPENS = Effect(Verdict.OPENS)


@pytest.mark.parametrize(("rule", "effect"), [
    ("-s 9.9.9.9/32 -j DROP", SHUTS),
    ("-j REJECT --reject-with icmp-port-unreachable", SHUTS),
    ('-j LOG --log-prefix "x -j ACCEPT "', SHUTS),
    ("-m limit --limit 3/min -j NFLOG --nflog-group 3", SHUTS),
    ("-s 9.9.9.9/32", SHUTS),
    ("-j RETURN", RETURNS),
    ("-j ACCEPT", OPENS),
    ("-j NFQUEUE --queue-num 0", OPENS),
    ("-p tcp -m multiport --dports 22 -j f2b-sshd", Effect(chain="f2b-sshd")),
    ("-g strangers", Effect(chain="strangers", returns_here=False)),
    ('-m comment --comment "it\\"s -j DROP" -j ACCEPT', OPENS),
    ('-m comment --comment "a -g b" -j DROP', SHUTS),
    ("-m comment --comment -j -j DROP", OPENS),
    ('-m comment --comment "no end -j DROP', OPENS),
    ("-s 9.9.9.9/32 -j", OPENS),
])
def test_what_a_rule_of_iptables_does(rule, effect) -> None:
    """What is in quotes is no target, and what cannot be read may be anything."""
    assert head.effect(rule) == effect


@pytest.mark.parametrize(("rule", "effect"), [
    ("ip saddr 9.9.9.9 drop", SHUTS),
    ("ip saddr @banned counter packets 1 bytes 2 reject with icmpx port-unreachable", SHUTS),
    ('log prefix "accept " drop', SHUTS),
    ("tcp dport 22 counter packets 0 bytes 0", SHUTS),
    ("ip saddr 9.9.9.9 return", RETURNS),
    ("iifname \"lo\" accept", OPENS),
    ("tcp dport vmap { 22 : accept, 80 : drop }", OPENS),
    ("queue to 0", OPENS),
    ("tcp dport 22 jump bans", Effect(chain="bans")),
    ("goto bans", Effect(chain="bans", returns_here=False)),
    ('ip saddr 9.9.9.9 jump bans comment "accept"', OPENS),
    ("jump {\n\t\taccept\n\t}", OPENS),
])
def test_what_a_rule_of_nft_does(rule, effect) -> None:
    """The same for the other tool's words."""
    assert nfthead.effect(rule) == effect


def judge(chains: dict[str, list[str]], unknown: Verdict = Verdict.OPENS) -> Judge:
    return Judge(chains, head.effect, unknown)


@pytest.mark.parametrize(("chain", "verdict"), [
    ([], Verdict.SHUTS),
    (["-s 9.9.9.9/32 -j DROP", "-j RETURN"], Verdict.SHUTS),
    (["-j further"], Verdict.SHUTS),
    (["-j DROP", "-j ACCEPT"], Verdict.OPENS),
    (["-j open"], Verdict.OPENS),
    (["-j itself"], Verdict.OPENS),
    (["-j MARK --set-xmark 0x1"], Verdict.OPENS),
])
def test_a_jump_is_what_its_chain_is(chain, verdict) -> None:
    """However deep, and a chain that leads to itself cannot be judged."""
    chains = {
        "itself": chain, "further": ["-j deeper"], "deeper": ["-j DROP"], "open": ["-j ACCEPT"],
    }
    for most in Verdict:
        assert judge(chains).harmless(["-j itself"], most) == (most >= verdict)
    gone = max(verdict, Verdict.RETURNS)
    for most in Verdict:
        assert judge(chains).harmless(["-g itself"], most) == (most >= gone)


def test_chains_are_not_followed_for_ever() -> None:
    chains = {f"c{n}": [f"-j c{n + 1}"] for n in range(5000)}
    assert judge({**chains, "c5000": []}).harmless(["-j c0"], Verdict.UNSEEN) == 0


# -- fail2ban's way, with iptables ---------------------------------------------------------------

JAIL = "-p tcp -m multiport --dports 22 -j f2b-sshd"
BANNED = "-s 198.51.100.9/32 -j REJECT --reject-with icmp-port-unreachable"


def choices(**options: object) -> RuleChoices:
    return RuleChoices.of(Config(**options), (PortRange("tcp", 8880, 8880),))  # type: ignore[arg-type]


def jailed() -> FakeFilterTable:
    kernel = FakeFilterTable()
    kernel.apply([":f2b-sshd - [0:0]", f"-A f2b-sshd {BANNED}", "-A f2b-sshd -j RETURN",
                  f"-I INPUT 1 {JAIL}", "-A INPUT -p tcp -m tcp --dport 443 -j ACCEPT"])
    return kernel


def start(kernel: FakeFilterTable, baseline: str) -> Structure:
    found = kernel.snapshot()
    structure = Structure.of(choices(baseline=baseline), IPV4, before(found))
    kernel.apply(install(found, structure, ()))
    return structure


def mended(kernel: FakeFilterTable, structure: Structure) -> bool:
    """Whether nothing has to be mended or moved."""
    seen = kernel.snapshot()
    return mend(seen, structure) == ([], []) and moved(seen, structure) == []


@pytest.mark.parametrize("baseline", ["service", "operator"])
def test_a_start_goes_behind_bans_and_before_what_accepts(baseline) -> None:
    """A successor after `kill -9` too; the stop leaves the rules of others as they were."""
    kernel = jailed()
    first = kernel.text()
    for _ in range(2):
        structure = start(kernel, baseline)
        assert kernel.rules["INPUT"][:2] == [JAIL, structure.jump]
        assert mended(kernel, structure)
    kernel.apply(remove(kernel.snapshot()))
    assert kernel.text() == first


@pytest.mark.parametrize("baseline", ["service", "operator"])
def test_bans_of_later_stay_before_us_and_what_accepts_does_not(baseline) -> None:
    kernel = FakeFilterTable()
    structure = start(kernel, baseline)
    kernel.apply([":f2b-sshd - [0:0]", "-A f2b-sshd -j RETURN", f"-I INPUT 1 {JAIL}",
                  "-I INPUT 1 -s 198.51.100.8/32 -j DROP", "-I INPUT 1 -j LOG"])
    assert mended(kernel, structure)
    kernel.apply(["-I INPUT 2 -i wg0 -j ACCEPT"])
    kernel.apply(moved(kernel.snapshot(), structure))
    assert kernel.rules["INPUT"] == [
        "-j LOG", structure.jump, "-i wg0 -j ACCEPT", "-s 198.51.100.8/32 -j DROP", JAIL]
    assert mended(kernel, structure)
    kernel.apply(["-I f2b-sshd 1 -j ACCEPT", f"-I INPUT 1 {JAIL}"])
    assert moved(kernel.snapshot(), structure)


# By name: what other firewalls put into INPUT, with the chains that matter, and our jump's place.
SHAPES = {
    "fail2ban for all ports": ([":f2b-all - [0:0]", "-A f2b-all -j RETURN",
                                "-A INPUT -p tcp -j f2b-all", "-A INPUT -i lo -j ACCEPT"], 1),
    "ufw": ([":ufw-before-logging-input - [0:0]", ":ufw-before-input - [0:0]",
             "-A ufw-before-input -i lo -j ACCEPT", "-A INPUT -j ufw-before-logging-input",
             "-A INPUT -j ufw-before-input"], 1),
    "firewalld": ([":INPUT_direct - [0:0]",
                   "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT",
                   "-A INPUT -i lo -j ACCEPT", "-A INPUT -j INPUT_direct"], 0),
    "Docker": ([":DOCKER-USER - [0:0]", "-A DOCKER-USER -j RETURN",
                "-A FORWARD -j DOCKER-USER"], 0),
    "Calico": ([":cali-INPUT - [0:0]", "-A cali-INPUT -p udp -j ACCEPT",
                '-A INPUT -m comment --comment "cali:Cz_u1IQiXIMmKD4c" -j cali-INPUT'], 0),
}


@pytest.mark.parametrize("whose", SHAPES)
def test_where_our_jump_goes_beside_other_firewalls(whose) -> None:
    """As docs/rules.md says; a start and a stop leave their rules as they were."""
    lines, place = SHAPES[whose]
    kernel = FakeFilterTable()
    kernel.apply(lines)
    first = kernel.text()
    structure = start(kernel, "service")
    assert kernel.rules["INPUT"].index(structure.jump) == place
    assert mended(kernel, structure)
    kernel.apply(remove(kernel.snapshot()))
    assert kernel.text() == first


@pytest.mark.parametrize(("policy", "place"), [("ACCEPT", 0), ("DROP", 1)])
def test_a_rule_that_leaves_input_is_a_ban_only_where_the_policy_drops(policy, place) -> None:
    """Otherwise it lets packets in, and our own policy would drop them."""
    kernel = FakeFilterTable()
    kernel.policies["INPUT"] = policy
    kernel.apply(["-A INPUT -i lo -j RETURN"])
    structure = start(kernel, "service")
    assert kernel.rules["INPUT"].index(structure.jump) == place
    kernel.apply(["-I INPUT 1 -s 198.51.100.8/32 -j RETURN"])
    assert mended(kernel, structure)


def test_what_was_not_read_stays_and_is_never_gone_behind() -> None:
    """Where only INPUT and our own chains can be printed."""
    text = f"*filter\n{PARTIAL}\n:INPUT DROP [0:0]\n-A INPUT {JAIL}\n-A INPUT -j ENVELOPE\nCOMMIT\n"
    seen = Snapshot.parse(text)
    assert not seen.whole
    assert head.stands(seen, "-j ENVELOPE")
    assert head.place(seen, [JAIL], "DROP") == 0
    assert not head.stands(Snapshot.parse(text.replace(PARTIAL, "# all")), "-j ENVELOPE")
    assert not head.stands(Snapshot.parse(text.replace("f2b-sshd", "ACCEPT")), "-j ENVELOPE")
