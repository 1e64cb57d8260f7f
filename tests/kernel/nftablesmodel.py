"""The rules that nftables must hold, computed without the service's code."""

from __future__ import annotations

import re
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

from envelope.config import Config
from envelope.firewall.nftables import NftablesFirewall
from tests.kernel.faultynft import NFT, FaultyNft
from tests.kernel.firewallundertest import NftKernel
from tests.kernel.iptablesmodel import BACKSTOP, NEAR
from tests.kernel.modelservices import ONE, SEVERAL, Grants, Guarded
from tests.kernel.test_nft_interference import INTERFERENCE, interfere

OURS = "inet envelope"
# Chains for rules of others: the state machine's names, and nft's.
CHAINS = {"INPUT": f"{OURS} input", "FORWARD": "ip others forward",
          "ENVELOPE": f"{OURS} baseline", "ENVELOPE-GRANTS": f"{OURS} grants"}
THEIRS = re.compile(r"(?:198\.51\.100|2001:db8:1:|9\.9\.9\.9)\S* (?:drop|accept)")
ELEMENTS = re.compile(r"^\t\telements = {[^}]*}\n", re.MULTILINE)
FIRST = re.compile(
    r"\tchain input {\n\t\ttype filter hook input .*\n(?:.* drop\n)*\t\tjump baseline\n"
)
UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

# As docs/rules.md has it, with the default options on device lo.
TABLE = """table inet envelope {
    SETS
    chain grants {
        GRANTS
    }
    chain baseline {
        iifname != "lo" accept
        ip protocol icmp accept
        meta nfproto ipv6 meta l4proto icmpv6 accept
        ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept
        tcp dport 8880 accept
        udp dport 53 accept
        ct state established,related ct direction reply accept
        jump grants
        meta l4proto tcp reject with tcp reset
        reject
    }
    chain was_loose {
    }
    chain input {
        type filter hook input priority filter; policy drop;
        jump baseline
    }
}
"""
# The sets of the services, by their numbers, and what each opens.
SETS4, SETS6 = ("grants4", "grants4_1", "grants4_2"), ("grants6", "grants6_1", "grants6_2")
PROBE, RANGED = ("tcp dport 443", "udp dport 7777"), ("udp dport 7780-7782",)
OPENS = {ONE: [("",)], SEVERAL: [PROBE, RANGED, (*PROBE, *RANGED)]}

# What others do to the sets of several services; the rest is in `INTERFERENCE`.
AMONG_SERVICES = {
    "a service's grants flushed": [f"flush set {OURS} grants4_1"],
    "a live grant of a service deleted": [
        f"delete element {OURS} grants4_1 {{{{ 203.0.113.2 }}}}"],
    "a live grant for every service": [
        f"add element {OURS} {name} {{{{ 203.0.113.2 timeout 1h }}}}" for name in SETS4],
    "a live grant for another service": [
        f"delete element {OURS} grants4_1 {{{{ 203.0.113.2 }}}}",
        f"add element {OURS} grants4 {{{{ 203.0.113.2 timeout 1h }}}}"],
    "a stray grant for a service": [f"add element {OURS} grants6_1 {{{{ 2001:db8::9 }}}}"],
    "a service's set gone": [f"flush chain {OURS} grants", f"delete set {OURS} grants6_1"],
}
EDITS = {**{what: commands for what, (commands, _) in INTERFERENCE.items()}, **AMONG_SERVICES}


@lru_cache
def expected(guarded: Guarded) -> list[str]:
    """The parts of our table as this machine's nft prints them, in a new network namespace."""
    opens = OPENS[guarded]
    sets = [f"set {name} {{ type ipv{version}_addr; flags timeout; counter; }}"
            for both in zip(SETS4[:len(opens)], SETS6, strict=False)
            for version, name in zip((4, 6), both, strict=True)]
    rules = [f"{port} {word} saddr @{name} accept" for number, ports in enumerate(opens)
             for word, name in (("ip", SETS4[number]), ("ip6", SETS6[number])) for port in ports]
    table = TABLE.replace("SETS", "\n".join(sets)).replace("GRANTS", "\n".join(rules))
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", f"{NFT} -f - && {NFT} list ruleset"], input=table,
        check=True, capture_output=True, text=True)
    return parts_of_our_table(done.stdout)


def parts_of_our_table(listed: str) -> list[str]:
    """Our table's sets and chains, without elements and others' rules."""
    listed = ELEMENTS.sub("", listed)
    (table,) = re.findall(r"^table inet envelope.*?^}$", listed, re.M | re.S) or [""]
    lines = [line for line in table.splitlines() if not THEIRS.search(line)]
    # nft lists a chain that was made anew last.
    return sorted(filter(None, "\n".join(lines[1:-1]).split("\n\n")))


class NftWorld:
    """Our table, one of others, and a faulty nft; see `iptablesmodel.IptablesWorld`."""

    edits = tuple(EDITS)
    families = (4,)
    # As the metrics name it.
    tables = ("inet",)
    silent_failures = frozenset({"truncate"})
    baselines = ("service",)
    # The kernel counts timeouts down in real time.
    speed = 1.0
    check_every = 0.1

    def __init__(self, folder: Path) -> None:
        self.kernel = NftKernel()
        self.tools = FaultyNft(folder)
        self._folder = folder
        self._number = 0
        self._theirs: list[str] = []
        self.kernel.run("add table ip others", "add chain ip others forward")

    def firewall(
        self, reactor: Any, baseline: str, guarded: Guarded, metrics: Any, wall: Any
    ) -> Any:
        """A firewall over the faulty tool."""
        config = Config(device="lo", firewall="nftables", baseline=baseline,
                        subject=guarded.subjects, nft=self._folder / "nft")
        return NftablesFirewall(
            reactor, config, metrics,
            check_every=self.check_every, trust=self.check_every)

    def begin(self, policy: str, rules: bool) -> None:
        """Prepare the kernel for the first start, with or without rules of others."""
        if rules:
            self.add(4, "FORWARD", "-A")

    def keep_refusing(self, baseline: str) -> None:
        """Nothing to do: the table's own baseline refuses packets."""

    def differences(
        self,
        baseline: str | None,
        guarded: Guarded,
        deadlines: dict[int, Grants],
        now: float,
    ) -> list[str]:
        """The differences from what must be there; without a baseline nothing may be ours."""
        found = []
        if self._found() != self._theirs:
            found.append(f"others' rules: {self._found()} instead of {self._theirs}")
        ours = self._ours()
        if baseline is None:
            return found + ([f"ours: {ours}"] if ours else [])
        if ours != expected(guarded):
            found.append(f"ours: {ours} instead of {expected(guarded)}")
        if not FIRST.search(self.kernel.saved()):
            found.append("our jump stands behind what accepts")
        wanted = {(sets[service], network.partition("/")[0]): deadline - now
                  for sets, grants in ((SETS4, deadlines[4]), (SETS6, deadlines[6]))
                  for (service, network), deadline in grants.items()}
        there = {name: _seconds(more) for name, more in self.kernel.elements_by_set().items()}
        if there.keys() != wanted.keys():
            found.append(f"grants: {sorted(there)} instead of {sorted(wanted)}")
        found += [
            f"{name} for {there[name]} s instead of {lasts}" for name, lasts in wanted.items()
            if name in there and abs(there[name] - lasts - BACKSTOP) > NEAR
        ]
        return found

    def _ours(self) -> list[str]:
        return parts_of_our_table(self.kernel.saved())

    def _found(self) -> list[str]:
        return [line.strip() for line in self.kernel.saved().splitlines() if THEIRS.search(line)]

    def add(self, family: int, chain: str, where: str) -> None:
        """Add a rule of others to a chain, if the chain exists."""
        self._number += 1
        source = (f"ip saddr 198.51.100.{self._number % 250 + 1}" if family == 4
                  else f"ip6 saddr 2001:db8:1::{self._number:x}")
        verb = "add" if where == "-A" else "insert"
        place = CHAINS.get(chain)
        if place is None or (place.startswith("ip ") and family == 6):
            return
        self._try(f"{verb} rule {place} {source} drop")

    def remove(self, family: int, chain: str, which: int) -> None:
        """Remove a rule of others from a chain, if there is one."""
        if chain not in CHAINS:
            return
        handles = re.findall(r"drop # handle (\d+)", self._listed(CHAINS[chain]))
        if handles:
            self._try(f"delete rule {CHAINS[chain]} handle {handles[which % len(handles)]}")

    def _listed(self, chain: str) -> str:
        done = subprocess.run(["/usr/sbin/nft", "-a", f"list chain {chain}"], capture_output=True,
                              text=True)
        return done.stdout

    def _try(self, *commands: str) -> None:
        try:
            self.kernel.run(*commands)
        except subprocess.CalledProcessError:
            # The chain or rule does not exist.
            return
        finally:
            self._theirs = self._found()

    def add_everywhere(self, family: int) -> None:
        """Make sure that others have a rule in every chain."""
        for chain, place in CHAINS.items():
            if " drop # handle" not in self._listed(place):
                self.add(family, chain, "-A")

    def edit(self, family: int, what: str, baseline: str) -> None:
        """Change our rules as `EDITS` says; do nothing if its target does not exist."""
        try:
            # The commands name another client's address than the one that is live here.
            interfere(self.kernel, [
                command.replace("203.0.113.1 ", "203.0.113.2 ") for command in EDITS[what]
            ])
        except (subprocess.CalledProcessError, TypeError):
            return
        finally:
            # Rules of others that went with the change, before the service repairs it.
            self._theirs = self._found()
            self._try("add table ip others", "add chain ip others forward")

    def cleared(self) -> None:
        """Our table was removed, with the rules that others had put into it."""
        self._theirs = self._found()

    def forgotten(self) -> None:
        """Nothing to do: no policy has to be remembered."""

    def remembers_loose(self) -> bool:
        """Whether our table tells that connections were picked up midway before."""
        return "chain was_loose {" in self.kernel.saved()

    def wipe(self) -> None:
        """Remove all rules."""
        self.kernel.run("flush ruleset")


def _seconds(more: str) -> float:
    (left,) = re.findall(r"expires (\S+)", more) or ["0s"]
    return sum(float(number) * UNITS[unit] for number, unit in
               re.findall(r"(\d+)(ms|d|h|m|s)", left))
