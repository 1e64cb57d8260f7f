"""Whether the firewall's tool exists, and gets the privileges that this process can give it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from envelope.config import Config
from envelope.firewall import FirewallError
from envelope.firewall.process import find_tool
from envelope.preflight.findings import Finding, fail, ok, warn
from envelope.runtime.capabilities import (
    Capabilities,
    Capability,
    missing,
    of_this_process,
    pass_on,
)


@dataclass(frozen=True, slots=True)
class Privileges:
    """What a tool has to run with."""

    capabilities: tuple[Capability, ...] = ()
    root: bool = False

    def missing_from(self, held: Capabilities) -> str:
        """One clause that names what the children of a process with `held` lack, or ""."""
        names = missing(held.of_children, self.capabilities)
        names += ["root"] if self.root and held.uid else []
        if not names:
            return ""
        return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing"


def privileges_for(tool: Path) -> Privileges:
    """What one tool needs (measured with iptables 1.8.9 and nft 1.0.6).

    iptables-legacy uses a raw socket, a list in /proc that only root may read, and a lock file that
    belongs to root.
    """
    if "legacy" in tool.resolve().name:
        return Privileges((Capability.NET_ADMIN, Capability.NET_RAW), root=True)
    return Privileges((Capability.NET_ADMIN,))


def _privileges_needed(config: Config, environ: Mapping[str, str]) -> Privileges:
    """What the tool of `config` needs; raise `FirewallError` when the tool is not found."""
    search_path = environ.get("PATH", "")
    if config.firewall == "none":
        return Privileges()
    if config.firewall == "nftables":
        return privileges_for(find_tool("nft", config.nft, search_path))
    return privileges_for(find_tool("iptables", config.iptables, search_path))


def find_firewall_tool(config: Config, environ: Mapping[str, str]) -> list[Finding]:
    """Fail when the tool is missing; let it have the capabilities of this process.

    Capabilities that are missing do not stop a start: a tool's file may have some of its own.
    """
    if config.firewall == "none":
        return []
    try:
        needed = _privileges_needed(config, environ)
    except FirewallError as error:
        return [fail(str(error), f"install it, or say where it is ({_options(config)})")]
    pass_on(of_this_process(), needed.capabilities)
    return []


def _options(config: Config) -> str:
    return "--nft" if config.firewall == "nftables" else "--iptables, --ip6tables"


def find_capabilities(config: Config, environ: Mapping[str, str]) -> list[Finding]:
    """Warn when the firewall's tool lacks privileges: most likely it will fail."""
    try:
        needed = _privileges_needed(config, environ)
    except FirewallError:
        return []
    if lacking := needed.missing_from(of_this_process()):
        return [warn(f"{lacking} for the firewall's tool",
                     "run as root, or pass it on (docs/operations.md, Privileges)")]
    names = " and ".join(f"CAP_{each.name}" for each in needed.capabilities)
    return [ok(f"the firewall's tool gets {names}")] if names else []


def explained(error: FirewallError, config: Config, environ: Mapping[str, str]) -> str:
    """The error of a tool, with the privileges that are missing named before it.

    A tool itself says at most "you must be root".
    """
    lacking = _privileges_needed(config, environ).missing_from(of_this_process())
    return f"{lacking}: {error}" if lacking else str(error)
