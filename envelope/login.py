"""What the default-drop rules would do to the SSH login that the start is typed in.

sshd says where a login comes from in `SSH_CONNECTION`: "client port server port" (sshd(8) and
ssh(1), "ENVIRONMENT").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

import ifaddr

from envelope.config import Address, Config, PortRange
from envelope.places import fold, parse_listen


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
    ports = [parse_listen(text).port for text in config.listen]
    return [PortRange("tcp", port, port) for port in ports if port]
