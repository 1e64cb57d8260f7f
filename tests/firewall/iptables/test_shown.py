"""Our rules as an operator is shown them: those wanted, and those that the kernel holds."""

from dataclasses import replace

import pytest

from envelope.addresses import PortRange
from envelope.config import Config
from envelope.firewall.iptables.shown import in_force
from envelope.firewall.iptables.structure import Structure
from envelope.firewall.policy import IPV4, RuleChoices


@pytest.mark.parametrize("policy", ["ACCEPT", "DROP"])
@pytest.mark.parametrize("baseline", ["service", "operator"])
def test_the_policy_is_ours_only_with_our_baseline(baseline: str, policy: str) -> None:
    config = replace(Config(), baseline=baseline)
    choices = RuleChoices.of(config, (PortRange("tcp", 8880, 8880),))
    structure = Structure.of(choices, IPV4, "DROP")
    rules = in_force(structure, {}, {}, [f":INPUT {policy} [0:0]"], mended=False)
    ours = ["iptables -P INPUT DROP"] if baseline == "service" else []
    assert [line for line in rules.wanted if " -P " in line] == ours
    assert [line for line in rules.held if " -P " in line] == (ours if policy == "DROP" else [])
