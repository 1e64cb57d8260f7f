"""What clients and the service agree on: the path, the sub-protocol, and the close codes."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

ACCESS_PATH: Final = "/v0/envelope/access"
SUBPROTOCOL: Final = "net.measurementlab.envelope"
MONITORING: Final = "monitoring"


class End(StrEnum):
    """Why a session ended (label `end` of `envelope_session_seconds`), and its close frame.

    `code` and `reason` are those of the service's close frame; `code` is None when the connection
    is lost.
    """

    code: int | None
    reason: str

    CLIENT = ("client", 1000, "")
    DEADLINE = ("deadline", 4000, "deadline")
    DATA = ("data", 1003, "data")
    REVOKED = ("revoked", 4001, "revoked")
    IDLE = ("idle", 4002, "idle")
    SHUTDOWN = ("shutdown", 1001, "stopping")
    LOST = ("lost", None, "")

    def __new__(cls, label: str, code: int | None, reason: str) -> End:
        """Make the member that is written `label`."""
        member = str.__new__(cls, label)
        member._value_ = label
        member.code = code
        member.reason = reason
        return member
