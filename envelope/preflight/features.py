"""What the kernel's firewall has to be able to do; tried in a network of this process's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from envelope.config import Config
from envelope.firewall import FirewallError
from envelope.firewall.errors import ToolFailed, ToolTimeout
from envelope.firewall.iptables import families_of_this_kernel
from envelope.firewall.iptables.tools import Paths
from envelope.firewall.process import find_tool
from envelope.preflight.commands import command
from envelope.preflight.findings import Finding, fail, ok

# Each with a transaction that needs it, and the kernel's modules that have it.
_OF_IPTABLES: Final = (
    ("the filter table", "", "ip_tables and iptable_filter, or nf_tables and nft_compat"),
    ("the time match", "-A INPUT -m time --datestop 2037-01-01T00:00:00 -j ACCEPT\n", "xt_time"),
    ("connection tracking",
     "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED --ctdir REPLY -j ACCEPT\n",
     "nf_conntrack and xt_conntrack"),
    ("REJECT", "-A INPUT -p tcp -j REJECT --reject-with tcp-reset\n", "ipt_REJECT and ip6t_REJECT"),
)
_TABLE: Final = "add table inet envelope-check; "
_CHAIN: Final = (
    f"{_TABLE}add chain inet envelope-check c {{ type filter hook input priority 0; }}; "
    "add rule inet envelope-check c "
)
_OF_NFTABLES: Final = (
    ("nf_tables", _TABLE, "nf_tables"),
    ("sets with timeouts",
     f"{_TABLE}add set inet envelope-check s {{ type ipv4_addr; flags timeout; }}; "
     "add element inet envelope-check s { 192.0.2.1 timeout 60s }", "nft_set_hash (nf_tables)"),
    ("connection tracking", f"{_CHAIN}ct state established,related ct direction reply accept",
     "nf_conntrack and nft_ct"),
    ("reject", f"{_CHAIN}meta l4proto tcp reject with tcp reset", "nft_reject_inet"),
)


def try_features(
    config: Config, search_path: str, run: Callable[..., str] = command
) -> list[Finding]:
    """Try what the rules need; changes this process's network."""
    found = []
    try:
        for feature in _features(config, search_path):
            try:
                run(feature.argv, feature.text)
            except ToolFailed as error:
                found.append(fail(
                    f"{feature.name} cannot be used: {error}",
                    f"see to it that the kernel has {feature.modules} (modprobe), and that the "
                    "tool is whole"))
                if isinstance(error, ToolTimeout):
                    break
            else:
                found.append(ok(f"{feature.name} can be used"))
    except FirewallError:
        # The tool is missing; another check says so.
        pass
    return found


@dataclass(frozen=True, slots=True)
class _Feature:
    name: str
    modules: str
    argv: tuple[str, ...]
    text: str


def _features(config: Config, search_path: str) -> Iterator[_Feature]:
    if config.firewall == "nftables":
        nft = find_tool("nft", config.nft, search_path)
        for name, lines, modules in _OF_NFTABLES:
            yield _Feature(f"nftables: {name}", modules, (str(nft), "-f", "-"), f"{lines}\n")
        return
    for family in families_of_this_kernel():
        restore = str(Paths.find(config, family, search_path).restore)
        for name, rule, modules in _OF_IPTABLES:
            text = f"*filter\n:INPUT ACCEPT [0:0]\n{rule}COMMIT\n"
            yield _Feature(f"{family.label}: {name}", modules, (restore,), text)
