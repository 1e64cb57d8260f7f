"""What a peer may use before it has a session, and while its connection is closed."""

from __future__ import annotations

from dataclasses import dataclass

from envelope.config import Config
from envelope.front.eviction import EvictionLimits

_DEFAULTS = Config()


def _eviction(config: Config) -> EvictionLimits:
    return EvictionLimits(
        config.max_connections, config.max_connections_per_network, config.max_handshakes
    )


_EVICTION = _eviction(_DEFAULTS)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, bytes and numbers; those without an option are enough for any client."""

    # From accept until the whole request has arrived, TLS included.
    request_seconds: float = _DEFAULTS.request_timeout
    # From our side's close until the peer's.
    disconnect_seconds: float = 2.0
    # From our close frame until the peer's.
    close_seconds: float = 1.0
    # Read and ignored after a refusal or the end of a session, until the peer's close: what a
    # client may have sent before it saw the answer.
    closing_bytes: int = 64 * 1024
    head_bytes: int = _DEFAULTS.max_header_bytes
    head_lines: int = 100
    # Sent between the request and its answer.
    early_bytes: int = 4 * 1024
    frames_per_second: int = 100
    eviction: EvictionLimits = _EVICTION

    @classmethod
    def of(cls, config: Config) -> Limits:
        """The limits that the operator has set."""
        return cls(
            request_seconds=config.request_timeout,
            head_bytes=config.max_header_bytes,
            eviction=_eviction(config),
        )
