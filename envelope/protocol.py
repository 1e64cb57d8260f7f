"""What clients and the service agree on: the path, the sub-protocol, how a session ends."""

from __future__ import annotations

from enum import Enum
from typing import Final

ACCESS_PATH: Final = "/v0/envelope/access"
SUBPROTOCOL: Final = "net.measurementlab.envelope"
MONITORING: Final = "monitoring"


class End(Enum):
    """Why a session ended: its metric label, and how its socket is closed."""

    CLIENT = ("client", 1000, "")
    DEADLINE = ("deadline", 4000, "deadline")
    DATA = ("data", 1003, "data")
    REVOKED = ("revoked", 4001, "revoked")
    SHUTDOWN = ("shutdown", 1001, "stopping")
    LOST = ("lost", None, "")

    def __init__(self, label: str, code: int | None, reason: str) -> None:
        self.label = label
        self.code = code
        self.reason = reason
