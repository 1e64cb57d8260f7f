"""The filter table read chain by chain, where iptables-save cannot print it as a whole.

One rule that nft wrote, in anybody's chain, makes iptables-nft-save fail or refuse the table.
`iptables -S CHAIN` goes on working for every other chain (iptables 1.8.9). So INPUT is read, and
then our own chains, each found by the jump to it, and the chains of others that INPUT leads to
before our jump. The result has the form of iptables-save's text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final

from envelope.firewall.errors import ToolFailed, UnreadableRules
from envelope.firewall.iptables.head import effect
from envelope.firewall.iptables.rules import CHAIN, DEVICES, GRANTS, OWN_CHAINS
from envelope.firewall.iptables.snapshot import PARTIAL, text_of
from envelope.firewall.iptables.structure import MARKERS

# Chains of others that are read, each by a process of its own.
MOST_CHAINS: Final = 16


async def chain_by_chain(
    list_chain: Callable[[str], Awaitable[bytes | None]], unused: Iterable[str] = ()
) -> str:
    """Read INPUT and our chains; `unused` are those of ours that nothing may jump to.

    `list_chain` returns what `iptables -S CHAIN` prints, or None when there is no such chain. It
    raises `ToolFailed` with what was printed before a rule that cannot be. Raises
    `UnreadableRules` when that rule is in a chain of ours, or in INPUT before our jump.
    """
    declared: list[str] = []
    rules: list[str] = []
    waiting = [*dict.fromkeys(("INPUT", CHAIN, GRANTS, DEVICES, *MARKERS, *unused))]
    seen = set(waiting)
    jumped_to = {"INPUT"}
    # Chains of others that may be lists of bans; INPUT counts as one until our jump.
    before = {"INPUT"}
    while waiting:
        chain = waiting.pop(0)
        try:
            lines = await _lines(list_chain, chain, chain in jumped_to)
        except UnreadableRules:
            if chain == "INPUT" or chain not in before:
                raise
            # Its jump cannot be judged.
            continue
        for line in lines:
            kind, _, rest = line.partition(" ")
            if kind == "-P":
                declared.append(":{} {} [0:0]".format(*rest.split()))
            elif kind == "-N":
                declared.append(f":{rest} - [0:0]")
            elif kind == "-A":
                rules.append(line)
                target = line.rpartition(" ")[2]
                jumped_to.add(target)
                theirs = effect(line.removeprefix(f"-A {chain} ")).chain
                if OWN_CHAINS.match(target):
                    before.discard(chain)
                elif theirs and chain in before and len(before) < MOST_CHAINS:
                    before.add(theirs)
                    target = theirs
                else:
                    continue
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
    return "\n".join(("*filter", PARTIAL, *declared, *rules, "COMMIT", ""))


async def _lines(
    list_chain: Callable[[str], Awaitable[bytes | None]], chain: str, exists: bool
) -> Iterator[str]:
    try:
        printed = await list_chain(chain)
    except ToolFailed as error:
        if not exists and "is incompatible" in str(error):
            # iptables 1.8.9 says so of a chain that does not exist, too, beside such rules.
            return iter(())
        printed = error.output
        jumps = (f"-j {CHAIN}\n", f"-j {GRANTS}\n")
        if chain != "INPUT" or not any(jump in text_of(printed) for jump in jumps):
            raise UnreadableRules(f"the chain {chain} cannot be printed: {error}") from None
    return iter(text_of(printed or b"").split("\n"))
