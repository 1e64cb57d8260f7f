"""What a start needs of this machine: a login that stays alive, and tools with their privileges.

sshd says where a login comes from in `SSH_CONNECTION`: "client port server port" (sshd(8) and
ssh(1), "ENVIRONMENT").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import ifaddr

from envelope.addresses import Address, PortRange, fold
from envelope.config import Config
from envelope.firewall.process import find_tool
from envelope.runtime.capabilities import (
    Capabilities,
    Capability,
    missing,
    of_this_process,
    pass_on,
)


def would_cut_off(
    ssh_connection: str | None,
    device: str,
    addresses: Mapping[str, Set[Address]],
    allow: Iterable[PortRange],
    service_ports: Iterable[PortRange],
) -> PortRange | None:
    """The port that keeps the login alive when it is let in, or None when nothing is in danger.

    `addresses` says which addresses each device has. A login to an address that no device has is
    taken to be in danger: nothing tells where its packets come in.
    """
    fields = (ssh_connection or "").split()
    try:
        server, port = fold(fields[2]), int(fields[3])
        login = PortRange.parse(f"tcp/{port}")
    except (IndexError, ValueError):
        return None
    homes = {name for name, held in addresses.items() if server in held}
    if server.is_loopback or (homes and device not in homes):
        return None
    if any(ports.covers("tcp", port) for ports in (*allow, *service_ports)):
        return None
    return login


def device_addresses() -> dict[str, set[Address]]:
    """Which addresses each device of this network namespace has."""
    found: dict[str, set[Address]] = {}
    for adapter in ifaddr.get_adapters():
        held = found.setdefault(str(adapter.name), set())
        for one in adapter.ips:
            held.add(fold(one.ip if isinstance(one.ip, str) else one.ip[0]))
    return found


def check_login(
    config: Config,
    environ: Mapping[str, str],
    addresses: Mapping[str, Set[Address]] | None = None,
) -> str | None:
    """One line for the operator when a start would cut off the login it is typed in, else None.

    `addresses` are this machine's when None.
    """
    if config.firewall == "none" or config.baseline != "service":
        return None
    held = device_addresses() if addresses is None else addresses
    danger = would_cut_off(
        environ.get("SSH_CONNECTION"), config.device, held, config.allow, _own_ports(config)
    )
    if danger is None:
        return None
    kept = " ".join(f"--allow={ports}" for ports in config.allow)
    also = f" (besides {kept})" if kept else ""
    return (
        f"the rules on {config.device} would cut off this very SSH login; "
        f"start with --allow={danger}{also}, or unset SSH_CONNECTION if they would not"
    )


def _own_ports(config: Config) -> list[PortRange]:
    ports = [spec.port for spec in config.listen]
    return [PortRange("tcp", port, port) for port in ports if port]


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
