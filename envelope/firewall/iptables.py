"""The real firewall: iptables and ip6tables, of either kind, driven through iptables-restore.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from envelope.config import Config
from envelope.firewall.backend import CHECK_EVERY, KernelFirewall
from envelope.firewall.process import IProcessReactor
from envelope.firewall.ruleset import Family
from envelope.firewall.table import FilterTable
from envelope.firewall.tools import FAMILIES, Paths, Tools
from envelope.metrics import Metrics


def families_of_this_kernel(proc: Path = Path("/proc/net/if_inet6")) -> tuple[Family, ...]:
    """The address families that the kernel speaks; IPv6 can be compiled or booted away."""
    return FAMILIES if proc.exists() else FAMILIES[:1]


class IptablesFirewall(KernelFirewall):
    """Both families' filter tables; raises `FirewallError` when a tool is missing."""

    def __init__(
        self,
        reactor: IProcessReactor,
        config: Config,
        metrics: Metrics,
        search_path: str = "",
        wall: Callable[[], float] = time.time,
        check_every: float = CHECK_EVERY,
    ) -> None:
        tables = [
            FilterTable(family, Tools(reactor, Paths.find(config, family, search_path)), metrics)
            for family in families_of_this_kernel()
        ]
        super().__init__(reactor, config, metrics, tables, wall, check_every)
