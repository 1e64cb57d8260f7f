"""Whether the rules would cut off the SSH login of the operator, or other open connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set

import ifaddr

from envelope.addresses import Address, Opening, PortRange, fold
from envelope.config import Config
from envelope.preflight.findings import Finding, fail, ok, warn
from envelope.runtime.inbound import inbound_connections, read_tables, ssh_connection


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


def judge_login(
    config: Config, environ: Mapping[str, str], addresses: Mapping[str, Set[Address]]
) -> list[Finding]:
    """Fail when the rules would cut off the login that the service is started from.

    `addresses` has the addresses of each device. The login is found in parent processes too.
    """
    if not drops(config):
        return []
    login = login_at_risk(
        ssh_connection(environ), config.device, addresses, _open_ports(config)
    )
    if login is None:
        return [ok(f"the rules on {config.device} do not cut off this login")]
    kept = " ".join(f"--allow={ports}" for ports in config.allow)
    also = f" (besides {kept})" if kept else ""
    return [fail(
        f"the rules on {config.device} would cut off this very SSH login",
        f"start with --allow={login}{also}, or with SSH_CONNECTION= if they would not",
    )]


def drops(config: Config) -> bool:
    """Whether the service itself makes the rules that refuse strangers."""
    return config.firewall != "none" and config.baseline == "service"


def _open_ports(config: Config) -> list[Opening]:
    own = [PortRange("tcp", spec.port, spec.port) for spec in config.listen if spec.port]
    return [*config.allow, *own]


def find_login(config: Config, environ: Mapping[str, str]) -> list[Finding]:
    """See `judge_login`, with the addresses of this network namespace."""
    return judge_login(config, environ, device_addresses())


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


def find_connections(config: Config, _: Mapping[str, str]) -> list[Finding]:
    """Warn of ports that have open connections now and will refuse new ones.

    A start goes on: whether a connection matters is not known, and without SSH_CONNECTION the
    operator's own login looks like any other.
    """
    if not drops(config):
        return []
    ports = ports_at_risk(
        inbound_connections(read_tables()), config.device, device_addresses(), _open_ports(config)
    )
    if not ports:
        return [ok(f"the rules on {config.device} shut no port with open connections")]
    named = ", ".join(f"tcp/{port} ({number})" for port, number in ports.items())
    options = " ".join(f"--allow=tcp/{port}" for port in ports)
    return [warn(f"the rules on {config.device} shut ports with open connections: {named}",
                 f"{options} would leave them open")]
