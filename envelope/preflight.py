"""What a start needs of this machine, checked before the service changes any rule.

`CHECKS` are the conditions, in the order in which a start checks them: the SSH login that the
service is started from stays alive (other connections are only warned of), enough files may be
open, and the firewall's tool exists and gets the privileges that this process can give it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import ifaddr
from twisted.logger import Logger

from envelope.addresses import Address, Opening, PortRange, fold
from envelope.config import Config
from envelope.firewall import FirewallError
from envelope.firewall.process import find_tool
from envelope.runtime import descriptors
from envelope.runtime.capabilities import (
    Capabilities,
    Capability,
    missing,
    of_this_process,
    pass_on,
)
from envelope.runtime.inbound import inbound_connections, read_tables, ssh_connection

_log = Logger(namespace="envelope")


class StartError(Exception):
    """The service cannot start; the text is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of a start. `ensure` brings it about if it can, or raises `StartError`."""

    name: str
    ensure: Callable[[Config, Mapping[str, str]], None]


def check(config: Config, environ: Mapping[str, str]) -> None:
    """Ensure every condition of a start; raise `StartError` for the first that is not met."""
    for condition in CHECKS:
        condition.ensure(config, environ)


# -- the SSH login ---------------------------------------------------------------------------


def login_at_risk(
    ssh_connection: str | None,
    device: str,
    addresses: Mapping[str, Set[Address]],
    open_ports: Iterable[Opening],
) -> PortRange | None:
    """The port of the SSH login that default-drop rules on `device` would cut off, or None.

    `ssh_connection` is what sshd puts into the variable SSH_CONNECTION: "client port server port"
    (ssh(1), "ENVIRONMENT"). `addresses` has the addresses of each device. A login to an address
    that no device has is at risk, because the device that its packets come in by is unknown.
    """
    fields = (ssh_connection or "").split()
    try:
        server, port = fold(fields[2]), int(fields[3])
        login = PortRange.parse(f"tcp/{port}")
    except (IndexError, ValueError):
        return None
    devices = {name for name, held in addresses.items() if server in held}
    if server.is_loopback or (devices and device not in devices):
        return None
    if any(ports.covers("tcp", port) for ports in open_ports):
        return None
    return login


def device_addresses() -> dict[str, set[Address]]:
    """The addresses of each device in this network namespace."""
    found: dict[str, set[Address]] = {}
    for adapter in ifaddr.get_adapters():
        held = found.setdefault(str(adapter.name), set())
        for one in adapter.ips:
            held.add(fold(one.ip if isinstance(one.ip, str) else one.ip[0]))
    return found


def check_login(
    config: Config, environ: Mapping[str, str], addresses: Mapping[str, Set[Address]]
) -> None:
    """Raise `StartError` when the rules would cut off the login that the service is started from.

    `addresses` has the addresses of each device. The login is found in parent processes too.
    """
    if not _drops(config):
        return
    login = login_at_risk(
        ssh_connection(environ), config.device, addresses, _open_ports(config)
    )
    if login is None:
        return
    kept = " ".join(f"--allow={ports}" for ports in config.allow)
    also = f" (besides {kept})" if kept else ""
    raise StartError(
        f"the rules on {config.device} would cut off this very SSH login; "
        f"start with --allow={login}{also}, or with SSH_CONNECTION= if they would not"
    )


def _drops(config: Config) -> bool:
    return config.firewall != "none" and config.baseline == "service"


def _open_ports(config: Config) -> list[Opening]:
    own = [PortRange("tcp", spec.port, spec.port) for spec in config.listen if spec.port]
    return [*config.allow, *own]


def _login(config: Config, environ: Mapping[str, str]) -> None:
    check_login(config, environ, device_addresses())


# -- other connections -----------------------------------------------------------------------


def ports_at_risk(
    connections: Iterable[tuple[Address, int]],
    device: str,
    addresses: Mapping[str, Set[Address]],
    open_ports: Iterable[Opening],
) -> dict[int, int]:
    """The TCP ports that rules on `device` shut although connections to them are open.

    `connections` are local addresses and ports. The values are numbers of connections.
    """
    elsewhere = {each for name, held in addresses.items() if name != device for each in held}
    elsewhere -= addresses.get(device, set())
    ranges = list(open_ports)
    return dict(sorted(Counter(
        port for address, port in connections
        if not address.is_loopback and address not in elsewhere
        and not any(ports.covers("tcp", port) for ports in ranges)
    ).items()))


def _connections(config: Config, _: Mapping[str, str]) -> None:
    """Warn of ports that have open connections now and will refuse new ones.

    The start goes on: whether a connection matters is not known, and without SSH_CONNECTION the
    operator's own login looks like any other.
    """
    if not _drops(config):
        return
    ports = ports_at_risk(
        inbound_connections(read_tables()), config.device, device_addresses(), _open_ports(config)
    )
    if ports:
        _log.warn(
            "the rules on {device} shut ports with open connections: {ports}; {options} would "
            "leave them open",
            device=config.device,
            ports=", ".join(f"tcp/{port} ({number})" for port, number in ports.items()),
            options=" ".join(f"--allow=tcp/{port}" for port in ports),
        )


# -- open files ------------------------------------------------------------------------------


def _open_files(config: Config, _: Mapping[str, str]) -> None:
    try:
        descriptors.ensure(config)
    except descriptors.TooFewDescriptors as error:
        raise StartError(str(error)) from None


# -- the firewall's tool and its privileges --------------------------------------------------


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


def _firewall_tool(config: Config, environ: Mapping[str, str]) -> None:
    # What is missing does not stop a start: a tool's file may have capabilities of its own.
    try:
        needed = _privileges_needed(config, environ)
    except FirewallError as error:
        raise StartError(str(error)) from None
    pass_on(of_this_process(), needed.capabilities)


def explained(error: FirewallError, config: Config, environ: Mapping[str, str]) -> str:
    """The error of a tool, with the privileges that are missing named before it.

    A tool itself says at most "you must be root".
    """
    lacking = _privileges_needed(config, environ).missing_from(of_this_process())
    return f"{lacking}: {error}" if lacking else str(error)


CHECKS: Final = (
    Check("the SSH login", _login),
    Check("other connections", _connections),
    Check("open files", _open_files),
    Check("the firewall's tool", _firewall_tool),
)
