"""Changes that others may make to our iptables rules, as commands with `{...}` to fill in.

`{live}` is the rule of a live grant, `{where}` the chain that it is in, `{end}` the chain that it
ends by. With several services, `{service}` is the chain of the second one, `{way}` the rule that
leads there, and `{elsewhere}` the chain of another service than the live grant's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_THIRD = "-p tcp -m tcp --dport 8880 -j ACCEPT"
_STRAY = "-s {stray} -m time --datestop 2030-01-01T00:00:00 -j ACCEPT"
_LATE = "ENVELOPE-END-20330101T000000"
_LATER = "-m time --datestop 2033-01-01T00:00:00 -j ACCEPT"
_MAKE_LATE = [f":{_LATE} - [0:0]", f"-A {_LATE} {_LATER}"]

_SERVICE = "ENVELOPE-GRANTS-S1"

# Others let a source in before our jump.
ABOVE = "a rule above us"

EDITS: dict[str, list[str]] = {
    "flush our chain": ["-F ENVELOPE"],
    "flush the grants": ["-F ENVELOPE-GRANTS"],
    "delete the jump": ["-D INPUT -j {entry}"],
    "flush INPUT": ["-F INPUT"],
    ABOVE: ["-I INPUT 1 -s {stray} -j ACCEPT"],
    "double the jump": ["-A INPUT -j {entry}"],
    "delete our third rule": [f"-D ENVELOPE {_THIRD}"],
    "delete our last rule": ["-D ENVELOPE -j REJECT --reject-with {reject}"],
    "our third rule behind the last": [f"-D ENVELOPE {_THIRD}", f"-A ENVELOPE {_THIRD}"],
    "a stray grant of its own": [f"-A ENVELOPE-GRANTS {_STRAY}"],
    "a stray grant": ["-A ENVELOPE-GRANTS -s {stray} -j {end}"],
    "a live grant deleted": ["-D {where} {live}"],
    "a live grant twice": ["-A {where} {live}"],
    "a live grant for longer": [*_MAKE_LATE, "-D {where} {live}", "-A {where} {longer}"],
    "an end emptied": ["-F {end}"],
    "an end that never comes": ["-F {end}", "-A {end} -j ACCEPT"],
    "an end that comes later": ["-F {end}", f"-A {{end}} {_LATER}"],
    "a rule before an end": ["-I {end} 1 -j ACCEPT"],
    "an end that nobody needs": _MAKE_LATE,
    "flush the marker": ["-F {marker}"],
    "remove the marker": ["-F {marker}", "-X {marker}"],
    "reset the policy": ["-P INPUT ACCEPT"],
    "flush everything": ["-F", "-X", "-P INPUT ACCEPT"],
    "delete the table": [],
    "a service's chain flushed": ["-F {service}"],
    "a service's chain gone": ["-F {service}", "-D ENVELOPE-GRANTS {way}", "-X {service}"],
    "no way to a service": ["-D ENVELOPE-GRANTS {way}"],
    "a live grant for another service, too": ["-A {elsewhere} {live}"],
    "a live grant for another service": ["-D {where} {live}", "-A {elsewhere} {live}"],
}
# The chain that an edit empties, rules of others included.
FLUSHED = {
    "flush our chain": "ENVELOPE", "flush the grants": "ENVELOPE-GRANTS", "flush INPUT": "INPUT",
    "a service's chain flushed": _SERVICE, "a service's chain gone": _SERVICE,
}


def fillings(
    chains: Mapping[str, Sequence[str]], family: int, baseline: str
) -> dict[str, str]:
    """Values for the `{...}` of `EDITS`; those that do not exist in `chains` are left out."""
    made = {
        "stray": {4: "203.0.113.99/32", 6: "2001:db8::99/128"}[family],
        "entry": "ENVELOPE" if baseline == "service" else "ENVELOPE-GRANTS",
        "reject": {4: "icmp-port-unreachable", 6: "icmp6-port-unreachable"}[family],
    }
    if _SERVICE in chains:
        made["service"] = _SERVICE
    for chain, rules in chains.items():
        if chain.startswith("ENVELOPE-WAS-"):
            made["marker"] = chain
        for rule in rules if chain.startswith("ENVELOPE-GRANTS") else ():
            if rule.endswith(f"-j {_SERVICE}"):
                made["way"] = rule
            if match := re.search(r"-j (ENVELOPE-END-\S+)$", rule):
                longer = rule.replace(match[1], _LATE)
                made |= {"live": rule, "where": chain, "longer": longer, "end": match[1]}
                if "-S" in chain:
                    made["elsewhere"] = "ENVELOPE-GRANTS-S0" if "-S0" not in chain else _SERVICE
    return made


def filled(what: str, made: Mapping[str, str]) -> list[str]:
    """The commands of an edit; none when its target does not exist."""
    try:
        return [command.format(**made) for command in EDITS[what]]
    except KeyError:
        return []
