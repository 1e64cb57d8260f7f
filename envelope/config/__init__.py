"""The settings of one service, checked and frozen: what every other module is built from.

`envelope.config.options` makes a `Config` from a command line and an environment.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

from envelope.addresses import Address, Network, PortRange
from envelope.config.listen import ListenSpec, parse_listen


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every option of the service (docs/options.md), in the units the code computes with.

    Durations are seconds, rates are bits per second, paths are absolute or as the operator wrote
    them. An instance that exists is consistent: `envelope.config.options` refuses the rest.
    """

    listen: tuple[ListenSpec, ...] = (parse_listen(":8880"),)
    cert: Path | None = None
    key: Path | None = None
    tls: Literal["intermediate", "modern"] = "intermediate"
    verify_key: tuple[Path, ...] = ()
    verify_jwks_url: str | None = None
    jwks_ca: Path | None = None
    issuer: str = "locate"
    machine: str | None = None
    subject: str | None = None
    token_required: bool = True
    timeout: float = 60.0
    max_duration: float | None = None
    max_clients: int = 1
    monitoring_slots: int = 0
    max_connections: int = 3000
    max_connections_per_network: int = 2000
    max_handshakes: int = 2500
    request_timeout: float = 8.0
    max_header_bytes: int = 16_384
    firewall: Literal["iptables", "nftables", "none"] = "iptables"
    device: str = "eth0"
    baseline: Literal["service", "operator"] = "service"
    on_stop: Literal["restore", "keep"] = "restore"
    allow: tuple[PortRange, ...] = (PortRange("udp", 53, 53),)
    grant_prefix4: int = 32
    grant_prefix6: int = 128
    grant_port: tuple[PortRange, ...] = ()
    proxy_port: tuple[int, ...] = ()
    established: Literal["cut", "keep"] = "cut"
    iptables: Path | None = None
    ip6tables: Path | None = None
    nft: Path | None = None
    tx_device: str | None = None
    tx_max_rate: float | None = None
    admin: tuple[ListenSpec, ...] = (parse_listen("tcp:9990:interface=127.0.0.1"),)
    drain: float = 0.0
    log_format: Literal["text", "json"] = "text"

    def network_of(self, address: Address) -> Network:
        """The network that a grant for `address` opens (`--grant-prefix4`, `--grant-prefix6`)."""
        if isinstance(address, IPv4Address):
            return IPv4Network((address, self.grant_prefix4), strict=False)
        return IPv6Network((address, self.grant_prefix6), strict=False)
