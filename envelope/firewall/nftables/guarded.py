"""The change from one set of guarded devices to another. Pure."""

from __future__ import annotations

from dataclasses import replace

from envelope.firewall.nftables.rules import BASELINE, DEVICES, TABLE, device_rule, device_rules
from envelope.firewall.nftables.snapshot import Chain, NftSnapshot, Rule
from envelope.firewall.policy import RuleChoices


def guard(snapshot: NftSnapshot, choices: RuleChoices) -> tuple[list[str], NftSnapshot]:
    """The commands that make the rules guard the devices of `choices` instead of others.

    That is no drift. Also returns the table as these commands leave it.
    """
    if choices.baseline == "operator":
        return [], snapshot
    chains = dict(snapshot.chains)
    wanted, first = device_rules(choices), device_rule(choices)
    ours = chains.get(BASELINE, Chain()).rules
    alone = device_rule(replace(choices, also_guarded=()))
    former = [
        rule for rule in ours if rule.text in (alone, f"jump {DEVICES}") and rule.text != first
    ]
    lines: list[str] = []
    there = chains.get(DEVICES, Chain())
    # An empty chain is not as we have left it, which is drift.
    if wanted and (former or there.rules) and there.texts != wanted:
        lines += [f"add chain {TABLE} {DEVICES}", f"flush chain {TABLE} {DEVICES}"]
        lines += [f"add rule {TABLE} {DEVICES} {rule}" for rule in wanted]
        chains[DEVICES] = Chain("", tuple(Rule(rule, 0) for rule in wanted))
    if former:
        lines += [f"delete rule {TABLE} {BASELINE} handle {rule.handle}" for rule in former]
        rest = tuple(rule for rule in ours if rule not in former)
        if first not in (rule.text for rule in ours):
            lines.append(f"insert rule {TABLE} {BASELINE} {first}")
            rest = (Rule(first, 0), *rest)
        chains[BASELINE] = Chain("", rest)
    if former and not wanted and DEVICES in chains:
        lines += [f"flush chain {TABLE} {DEVICES}", f"delete chain {TABLE} {DEVICES}"]
        del chains[DEVICES]
    return lines, replace(snapshot, chains=chains)
