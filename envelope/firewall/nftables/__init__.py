"""The firewall with nftables: one table for both address families, driven through nft."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from envelope.config import Config
from envelope.firewall.generation import TRUST, GenerationCounter
from envelope.firewall.kernelfirewall import CHECK_EVERY, KernelFirewall
from envelope.firewall.leftovers import OtherTable
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.nftables import plan, rules
from envelope.firewall.nftables.counters import ElementCounters
from envelope.firewall.nftables.table import NftTable
from envelope.firewall.nftables.tool import Nft
from envelope.firewall.policy import RuleChoices
from envelope.firewall.process import IProcessReactor, find_tool


class NftablesFirewall(KernelFirewall):
    """The table `inet envelope`; raises `FirewallError` when nft is missing."""

    def __init__(
        self,
        reactor: IProcessReactor,
        config: Config,
        metrics: FirewallMetrics,
        search_path: str = "",
        generation: Callable[[], int | None] | None = None,
        trust: float = TRUST,
        check_every: float = CHECK_EVERY,
        others: Sequence[OtherTable] = (),
    ) -> None:
        nft = Nft(reactor, find_tool("nft", config.nft, search_path))
        self._counter = GenerationCounter()
        self._elements = ElementCounters()
        table = NftTable(
            reactor, nft, metrics, generation or self._counter.number, trust, self._elements
        )
        super().__init__(reactor, config, metrics, [table], check_every, others)

    def _release(self) -> None:
        super()._release()
        self._counter.close()
        self._elements.close()


def nft_text(choices: RuleChoices) -> str:
    """The start as nft reads it, with a grant shown as a comment; pure."""
    structure = rules.Structure(choices)
    shown = ["# nft -f", *plan.commands(structure)]
    several = len(choices.services) > 1
    for number, service in enumerate(choices.services):
        name = f" for {service.name}" if several else ""
        shown += [
            f"# a grant{name}: add element {rules.TABLE} {rules.set_name(version, number)} "
            "{ ADDRESS timeout TIME }"
            for version in (4, 6)
        ]
    if choices.baseline == "service" and choices.established == "cut":
        shown.append(
            f"# an empty chain {rules.WAS_LOOSE} is added where the start sets "
            "nf_conntrack_tcp_loose to 0"
        )
    return "\n".join(shown)
