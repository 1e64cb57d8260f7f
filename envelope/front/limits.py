"""What a peer may cost before it has a session, and on its way out."""

from __future__ import annotations

from dataclasses import dataclass

from envelope.config import Config
from envelope.front.eviction import CrowdLimits

_DEFAULTS = Config()
_CROWD = CrowdLimits(
    _DEFAULTS.max_connections, _DEFAULTS.max_connections_per_network, _DEFAULTS.max_handshakes
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, bytes and numbers; those without an option are what the protocol needs."""

    request_seconds: float = _DEFAULTS.request_timeout
    hang_up_seconds: float = 2.0
    close_seconds: float = 1.0
    head_bytes: int = _DEFAULTS.max_header_bytes
    head_lines: int = 100
    early_bytes: int = 4 * 1024
    frames_per_second: int = 100
    crowd: CrowdLimits = _CROWD

    @classmethod
    def of(cls, config: Config) -> Limits:
        """The limits that an operator has set."""
        return cls(
            request_seconds=config.request_timeout,
            head_bytes=config.max_header_bytes,
            crowd=CrowdLimits(
                config.max_connections, config.max_connections_per_network, config.max_handshakes
            ),
        )
