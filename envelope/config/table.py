"""Every option of the service, one entry each: the command line, the environment and the help.

Defaults are written as an operator would; they are those of `envelope.config.Config`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from envelope.addresses import PortRange
from envelope.config import values as values


@dataclass(frozen=True, slots=True)
class Option:
    """One option: how its value is read (`read` raises `ValueError`), and what it means.

    `many` options may be given several times; with `none`, that word alone means nothing at all.
    `default` is only shown, and empty when there is none.
    """

    name: str
    default: str
    read: Callable[[str], Any]
    meaning: str
    many: bool = False
    none: bool = False

    @property
    def field(self) -> str:
        """Its name in `Config`."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return "ENVELOPE_" + self.field.upper()

    @property
    def help(self) -> str:
        """Its paragraph in `--help`."""
        often = " May be given several times." if self.many else ""
        default = f" [default: {self.default}]" if self.default else ""
        return f"{self.meaning}{often}{default}"


TABLE: Final = (
    Option(
        "listen", ":8880", values.endpoint,
        "Where clients connect: [HOST]:PORT, or a Twisted server endpoint (tcp:, tcp6:, systemd:, "
        "haproxy:tcp:..., unix:). :PORT is every IPv4 and IPv6 address; port 0 picks a free one "
        "and logs it.",
        many=True,
    ),
    Option(
        "cert", "", values.path,
        "File with the certificate chain in PEM, leaf first; needs --key. Without both, tokens "
        "travel in the clear.",
    ),
    Option("key", "", values.path, "File with the certificate's private key in PEM."),
    Option(
        "tls", "intermediate", values.choice("intermediate", "modern"),
        "Which of Mozilla's TLS configurations is spoken: intermediate (TLS 1.2 and 1.3) or modern "
        "(TLS 1.3 alone).",
    ),
    Option(
        "verify-key", "", values.path,
        "File with a public JWK or JWK Set that access tokens are verified with.", many=True,
    ),
    Option(
        "verify-jwks-url", "", values.https_url,
        "https URL of a JWK Set that access tokens are verified with, besides --verify-key; "
        "fetched at the start and kept fresh.",
    ),
    Option(
        "jwks-ca", "", values.path,
        "File with the certificates, in PEM, of the authorities that the host of --verify-jwks-url "
        "is verified with. Without it, those that this system trusts.",
    ),
    Option("issuer", "locate", values.words, "The issuer (iss) that an access token must name."),
    Option(
        "machine", "", values.words,
        "This machine's name, which an access token's audience (aud) must contain.",
    ),
    Option(
        "subject", "", values.words,
        "The subject (sub) that an access token must name, unless it is 'monitoring'.",
    ),
    Option(
        "token-required", "true", values.boolean,
        "true or false. With false, tokens are optional (one that is sent must still be valid) "
        "and the firewall is not managed.",
    ),
    Option(
        "timeout", "60s", values.some_time,
        "The least time that a grant may last: seconds, or as 90s, 1m30s, 2h.",
    ),
    Option(
        "max-duration", "", values.some_time,
        "The most time that a grant may last, whatever its token says: seconds, or as 10m.",
    ),
    Option("max-clients", "1", values.whole(1, 1_000_000), "Sessions that may be open at once."),
    Option(
        "monitoring-slots", "0", values.whole(0, 1_000_000),
        "Sessions beyond --max-clients that are kept for the subject 'monitoring'.",
    ),
    Option(
        "max-connections", "3000", values.whole(1, 1_000_000),
        "Connections without a session that may be there at once: those that have not made their "
        "request, and those that have been answered and are not gone. At a limit one of them is "
        "dropped for each that comes; sessions never are.",
    ),
    Option(
        "max-connections-per-network", "2000", values.whole(1, 1_000_000),
        "The same for those of one /32 (IPv4) or /64 (IPv6).",
    ),
    Option(
        "max-handshakes", "2500", values.whole(1, 1_000_000),
        "Connections that have not made their request, TLS included, that may be there at once.",
    ),
    Option(
        "request-timeout", "8s", values.some_time,
        "How long a client may take from connecting to being answered: seconds, or as 1m30s.",
    ),
    Option(
        "max-header-bytes", "16384", values.whole(1024, 1_048_576),
        "Bytes that the head of a request may have, from 1024; a token alone may take 8192.",
    ),
    Option(
        "firewall", "iptables", values.choice("iptables", "nftables", "none"),
        "iptables, nftables, or none to let clients in without any rule.",
    ),
    Option(
        "device", "eth0", values.device,
        "The public network device that is guarded; traffic on all others is let in.",
    ),
    Option(
        "baseline", "service", values.choice("service", "operator"),
        "service: the default-drop rules are installed at the start and taken away at the stop. "
        "operator: they are yours, and only grants are inserted and removed.",
    ),
    Option(
        "on-stop", "restore", values.choice("restore", "keep"),
        "restore: a stop puts the rules back as they were. keep: it leaves the default-drop "
        "rules in force.",
    ),
    Option(
        "allow", "udp/53", PortRange.parse,
        "PROTO/PORT[-PORT] that is always open on the device, besides the service's own port and "
        "ICMP; 'none' for nothing. Whatever is given replaces the default.",
        many=True, none=True,
    ),
    Option(
        "grant-prefix4", "32", values.whole(8, 32),
        "How many leading bits of an IPv4 client's address a grant opens, 8 to 32: 32 is the "
        "client alone, 24 its whole /24.",
    ),
    Option(
        "grant-prefix6", "128", values.whole(16, 128),
        "The same for IPv6, 16 to 128.",
    ),
    Option(
        "grant-port", "", PortRange.parse,
        "PROTO/PORT[-PORT] that a grant opens; without any, a grant opens everything.", many=True,
    ),
    Option(
        "proxy-port", "", values.whole(1, 65535),
        "TCP port that is open to everyone while any grant of that address family is live.",
        many=True,
    ),
    Option(
        "established", "cut", values.choice("cut", "keep"),
        "cut: what a client opened under its grant ends with the grant. keep: it runs on.",
    ),
    Option("iptables", "", values.path, "Path of iptables; its -save and -restore are beside it."),
    Option("ip6tables", "", values.path, "Path of ip6tables, likewise."),
    Option("nft", "", values.path, "Path of nft."),
    Option(
        "tx-device", "", values.device,
        "The device whose transmit rate is measured.",
    ),
    Option(
        "tx-max-rate", "", values.rate,
        "Refuse new clients, monitoring excepted, while it sends more than this many bits per "
        "second; k, M and G are understood.",
    ),
    Option(
        "admin", "tcp:9990:interface=127.0.0.1", values.endpoint,
        "Where metrics and health are served, written as for --listen; 'none' for nowhere.",
        many=True, none=True,
    ),
    Option(
        "drain", "0s", values.duration,
        "How long open sessions may go on after SIGTERM before they are closed: seconds, or as "
        "1m30s.",
    ),
    Option(
        "log-format", "text", values.choice("text", "json"),
        "text, or json for one object a line; either goes where twistd's --logfile says.",
    ),
)
