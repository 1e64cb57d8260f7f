"""The settings of one service: every option is one field of `Config`.

`envelope.config.options` makes a `Config` from a command line and an environment.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from envelope.addresses import Address, Network, Opening, PortRange, network_around, parse_opening
from envelope.config import values
from envelope.config.control import ControlOption
from envelope.config.fields import many, one, optional, options_of
from envelope.config.listen import ListenSpec
from envelope.config.subjects import Service, Subject, services_of

Seconds: TypeAlias = float
BitsPerSecond: TypeAlias = float


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every option of the service: how it is read, its default, and what it means.

    docs/options.md has the same for operators. A field `max_clients` is the option `--max-clients`,
    and `ENVELOPE_MAX_CLIENTS` in the environment. `--help` shows the fields in this order. Paths
    are absolute. An instance made by `envelope.config.options` is consistent.
    """

    listen: tuple[ListenSpec, ...] = many(
        ":8880", values.listener,
        "Address to listen on: [HOST]:PORT, or a Twisted server endpoint (tcp:, tcp6:, systemd:, "
        "haproxy:tcp:..., unix:). :PORT is every IPv4 and IPv6 address, [::]:PORT every IPv6 "
        "address; port 0 picks a free one and logs it.",
        heading="Where clients connect",
    )
    cert: Path | None = optional(
        values.path,
        "File with the certificate chain in PEM, leaf first; needs --key. Without both, tokens "
        "travel unencrypted.",
    )
    key: Path | None = optional(
        values.path, "File with the certificate's private key in PEM."
    )
    tls: Literal["intermediate", "modern"] = one(
        "intermediate", values.choice("intermediate", "modern"),
        "Mozilla's TLS configuration to use: intermediate (TLS 1.2 and 1.3) or modern (TLS 1.3 "
        "only).",
    )

    verify_key: tuple[Path, ...] = many(
        "", values.path,
        "File with a public JWK or JWK Set that access tokens are verified with.",
        heading="Who is let in",
    )
    verify_jwks_url: str | None = optional(
        values.https_url,
        "https URL of a JWK Set that access tokens are verified with, in addition to "
        "--verify-key; fetched at the start and refreshed while the service runs.",
    )
    jwks_ca: Path | None = optional(
        values.path,
        "File with the certificates, in PEM, of the authorities that the host of --verify-jwks-url "
        "is verified with. Without it, those that this system trusts.",
    )
    issuer: str = one("locate", values.name, "The issuer (iss) that an access token must name.")
    machine: str | None = optional(
        values.name, "This machine's name, which an access token's audience (aud) must contain."
    )
    subject: tuple[Subject, ...] = many(
        "", Subject.parse,
        "The subject (sub) that an access token must name, unless it is 'monitoring': NAME, or "
        "NAME=PROTO/PORT[-PORT][+PROTO/PORT...]. A grant for a subject with ports opens these "
        "instead of --grant-port; one for monitoring opens the ports of every subject.",
    )
    token_required: bool = one(
        "true", values.boolean,
        "true or false. With false, tokens are optional (one that is sent must still be valid) "
        "and the firewall is not managed.",
    )
    token_use: Literal["any", "network", "once"] = one(
        "any", values.choice("any", "network", "once"),
        "any: a token is its bearer's until it expires. network: it belongs to the network that "
        "used it first, one of each address family. once: one session of each address family, "
        "then no more. With network or once, a token without jti is refused.",
    )
    timeout: Seconds = one(
        "60s", values.positive_duration,
        "How long a grant may last at least, even if its token expires earlier: seconds, or 1m30s.",
    )
    max_duration: Seconds | None = optional(
        values.positive_duration,
        "How long a grant may last at most, whatever its token says: seconds, or as 10m.",
    )
    idle: Seconds | None = optional(
        values.positive_duration,
        "End a session whose grant has let no packet in for so long: seconds, or as 2m. Packets to "
        "the service's own port do not count.",
    )

    firewall: Literal["iptables", "nftables", "none"] = one(
        "iptables", values.choice("iptables", "nftables", "none"),
        "iptables, nftables, or none to accept clients without any rule.",
        heading="The firewall",
    )
    device: str = one(
        "eth0", values.device,
        "The public network device that is guarded; traffic on all others is let in.",
    )
    baseline: Literal["service", "operator"] = one(
        "service", values.choice("service", "operator"),
        "service: the service installs the default-drop rules at the start and removes them at "
        "the stop. operator: they are yours, and only grants are inserted and removed.",
    )
    on_stop: Literal["restore", "keep"] = one(
        "restore", values.choice("restore", "keep"),
        "restore: a stop puts the rules back as they were. keep: it leaves the default-drop "
        "rules in force.",
    )
    allow: tuple[Opening, ...] = many(
        "udp/53", parse_opening,
        "PROTO/PORT[-PORT], or the name or number of a protocol without ports (igmp, esp, vrrp, "
        "112), that is always open on the device, besides the service's own port and ICMP; 'none' "
        "for nothing. Whatever is given replaces the default.",
        none=True,
    )
    grant_prefix4: int = one(
        "32", values.whole_number(8, 32),
        "How many leading bits of an IPv4 client's address a grant opens, 8 to 32: 32 is the "
        "client alone, 24 its whole /24.",
    )
    grant_prefix6: int = one("128", values.whole_number(16, 128), "The same for IPv6, 16 to 128.")
    grant_port: tuple[PortRange, ...] = many(
        "", PortRange.parse,
        "PROTO/PORT[-PORT] that a grant opens; without any, a grant opens everything.",
    )
    proxy_port: tuple[int, ...] = many(
        "", values.whole_number(1, 65535),
        "TCP port that is open to everyone while there is any grant of that address family.",
    )
    established: Literal["cut", "keep"] = one(
        "cut", values.choice("cut", "keep"),
        "cut: connections that a client opened under its grant end with it. keep: they continue.",
    )
    iptables: Path | None = optional(
        values.path,
        "Path of iptables; its -save and -restore are in the same folder. Without it, PATH and "
        "the sbin folders are searched.",
    )
    ip6tables: Path | None = optional(values.path, "The same for ip6tables.")
    nft: Path | None = optional(values.path, "Path of nft. Without it, it is searched likewise.")

    max_clients: int = one(
        "1", values.whole_number(1, 1_000_000),
        "Visitors at once. One over IPv4 and IPv6 is one visitor if both tokens have the same jti "
        "and subject.",
        heading="Limits",
    )
    monitoring_slots: int = one(
        "0", values.whole_number(0, 1_000_000),
        "Sessions beyond --max-clients that are reserved for the subject 'monitoring'.",
    )
    max_connections: int = one(
        "3000", values.whole_number(1, 1_000_000),
        "Connections without a session that may be open at once: those that have not sent their "
        "whole request, and those that have been answered and not closed yet. At a limit, each "
        "new connection makes the service drop an older one; it never drops sessions.",
    )
    max_connections_per_network: int = one(
        "2000", values.whole_number(1, 1_000_000),
        "The same for the connections of one /32 (IPv4) or /64 (IPv6).",
    )
    max_handshakes: int = one(
        "2500", values.whole_number(1, 1_000_000),
        "Connections that may be open at once without having sent their whole request; the TLS "
        "handshake counts as part of it.",
    )
    request_timeout: Seconds = one(
        "8s", values.positive_duration,
        "How long a client's whole request may take, from its connecting on: seconds, or 1m30s.",
    )
    max_header_bytes: int = one(
        "16384", values.whole_number(1024, 1_048_576),
        "The largest size of a request's head in bytes, at least 1024; a token may take 8192.",
    )
    tx_device: str | None = optional(
        values.device, "The network device whose transmit rate is measured."
    )
    tx_max_rate: BitsPerSecond | None = optional(
        values.rate,
        "Refuse new clients, except monitoring, while --tx-device sends more than this many bits "
        "per second; k, M and G are understood.",
    )

    admin: tuple[ListenSpec, ...] = many(
        "tcp:9990:interface=127.0.0.1", values.listener,
        "Where metrics and health are served, written as for --listen; 'none' for nowhere.",
        none=True, heading="Operating the service",
    )
    status: tuple[ListenSpec, ...] = many(
        "tcp:8881:interface=127.0.0.1", values.listener,
        "Where the status page is served, and everything that shows addresses, written as for "
        "--listen; 'none' for nowhere.",
        none=True,
    )
    status_host: tuple[str, ...] = many(
        "", values.host_name,
        "Name under which the status page may be asked for, besides IP addresses and localhost.",
    )
    control: ControlOption = optional(
        values.path_or_none,
        "Path of the control socket, a UNIX socket with mode 0600, which envelope sessions, revoke "
        "and status use; 'none' for none. Without it, $RUNTIME_DIRECTORY/control, else "
        "/run/envelope/control, if it can be made.",
    )
    drain: Seconds = one(
        "0s", values.duration,
        "How long open sessions may continue after SIGTERM before they are closed: seconds, or 2m.",
    )
    log_claim: tuple[str, ...] = many(
        "", values.name,
        "Name of a token's claim that is written into a session's events and shown to the "
        "operator: a number, or a text of at most 64 printable characters. Any other value is "
        "left out.",
    )
    log_addresses: Literal["full", "network", "none"] = one(
        "full", values.choice("full", "network", "none"),
        "How much of an address the log shows: full, network (/24 of IPv4, /64 of IPv6) or none.",
    )
    log_format: Literal["text", "json"] = one(
        "text", values.choice("text", "json"),
        "text, or json for one object a line; either goes where twistd's --logfile says.",
    )

    @property
    def services(self) -> tuple[Service, ...]:
        """The services that are guarded, in the order of their numbers."""
        return services_of(self.subject, self.grant_port)

    def network_of(self, address: Address) -> Network:
        """The network that a grant for `address` opens (`--grant-prefix4`, `--grant-prefix6`)."""
        bits = self.grant_prefix4 if address.version == 4 else self.grant_prefix6
        return network_around(address, bits)


OPTIONS: Final = options_of(Config)
