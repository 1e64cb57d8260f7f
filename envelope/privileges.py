"""What the firewall's tools must be allowed to do, and the word for the operator when they are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from envelope.capabilities import Capabilities, Capability, missing, of_this_process
from envelope.config import Config
from envelope.firewall.tools import find_tool
from envelope.hardening import pass_on


@dataclass(frozen=True, slots=True)
class Needs:
    """What a tool runs with at the least."""

    capabilities: tuple[Capability, ...] = ()
    root: bool = False

    def lacking(self, held: Capabilities) -> str:
        """One clause naming what its tools would miss if `held` is ours; empty if nothing."""
        names = missing(held.of_children, self.capabilities)
        names += ["root"] if self.root and held.uid else []
        if not names:
            return ""
        return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing"


def needs_of(tool: Path) -> Needs:
    """What one tool needs (measured with iptables 1.8.9 and nft 1.0.6).

    iptables-legacy goes through a raw socket, a list in /proc that only root may read, and a lock
    file of root's.
    """
    if "legacy" in tool.resolve().name:
        return Needs((Capability.NET_ADMIN, Capability.NET_RAW), root=True)
    return Needs((Capability.NET_ADMIN,))


def needs(config: Config, search_path: str) -> Needs:
    """What the tool that `config` asks for needs; raise `FirewallError` when it is not there."""
    if config.firewall == "none":
        return Needs()
    if config.firewall == "nftables":
        return needs_of(find_tool("nft", config.nft, search_path))
    return needs_of(find_tool("iptables", config.iptables, search_path))


def pass_on_needed(config: Config, search_path: str) -> None:
    """Let the tools have what they need, as far as this process has it."""
    pass_on(of_this_process(), needs(config, search_path).capabilities)


def explained(error: Exception, config: Config, search_path: str) -> str:
    """What a tool said when it failed, behind what is missing, if anything is.

    Tools say at best "you must be root". What is missing does not stop a start by itself: a tool
    may have capabilities of its own.
    """
    lacking = needs(config, search_path).lacking(of_this_process())
    return f"{lacking}: {error}" if lacking else str(error)
