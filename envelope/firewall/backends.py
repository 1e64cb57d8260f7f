"""Makes the firewall that the operator chose, and tells it of the other backends' tables."""

from __future__ import annotations

from envelope.config import Config
from envelope.firewall import IFirewall, iptables, nftables
from envelope.firewall.iptables import leftovers as of_iptables
from envelope.firewall.leftovers import OtherTable
from envelope.firewall.memory import MemoryFirewall
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.nftables import leftovers as of_nftables
from envelope.firewall.process import IProcessReactor


def make_firewall(
    reactor: IProcessReactor, config: Config, metrics: FirewallMetrics, search_path: str
) -> IFirewall:
    """The firewall of `--firewall`; raises `FirewallError` when a tool is missing."""
    if config.firewall == "none":
        return MemoryFirewall()
    others: list[OtherTable] = [*of_iptables.other_tables(reactor, config, search_path)]
    if config.firewall == "nftables":
        return nftables.NftablesFirewall(reactor, config, metrics, search_path, others=others)
    others += of_nftables.other_tables(reactor, config, search_path)
    return iptables.IptablesFirewall(reactor, config, metrics, search_path, others=others)
