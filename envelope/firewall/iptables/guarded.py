"""The change from one set of guarded devices to another. Pure."""

from __future__ import annotations

from dataclasses import replace

from envelope.firewall.iptables.rules import CHAIN, DEVICES, device_rule, device_rules
from envelope.firewall.iptables.snapshot import Snapshot
from envelope.firewall.policy import RuleChoices


def guard(snapshot: Snapshot, choices: RuleChoices) -> tuple[list[str], Snapshot]:
    """The lines that make the rules guard the devices of `choices` instead of others.

    That is no drift. Also returns the table as these lines leave it.
    """
    rules = dict(snapshot.rules)
    wanted, first = device_rules(choices), device_rule(choices)
    ours = rules.get(CHAIN, ())
    alone = device_rule(replace(choices, also_guarded=()))
    former = [rule for rule in ours if rule in (alone, f"-j {DEVICES}") and rule != first]
    lines: list[str] = []
    there = rules.get(DEVICES)
    # An empty chain is not as we have left it, which is drift.
    if wanted and (former or there) and there != wanted:
        lines += [f":{DEVICES} - [0:0]", *(f"-A {DEVICES} {rule}" for rule in wanted)]
        rules[DEVICES] = wanted
    if former:
        lines += [f"-D {CHAIN} {rule}" for rule in former]
        lines += [f"-I {CHAIN} 1 {first}"] if first not in ours else []
        rest = tuple(rule for rule in ours if rule not in former)
        rules[CHAIN] = rest if first in ours else (first, *rest)
    if there is not None and not wanted:
        lines += [f":{DEVICES} - [0:0]", f"-X {DEVICES}"]
        del rules[DEVICES]
    return lines, replace(snapshot, rules=rules)
