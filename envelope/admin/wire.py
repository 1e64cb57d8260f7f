"""The format of the control socket: one JSON object a line (docs/control.md). Pure.

A client sends one request, gets one answer, and the connection ends. Each object has the format's
`version`. What is not known is refused, never passed over: a new client must not believe that an
old service has obeyed a part that it does not know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any, Final, TypeAlias

from envelope.addresses import Network
from envelope.credentials.strictjson import decode_object

VERSION: Final = 1
# Bytes of a request's line, its end included: some 3,000 ids.
MOST_REQUEST: Final = 65_536


class WireError(Exception):
    """A request that is not understood; the text is one line that repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class StatusQuery:
    """Asks for the object of `/status`."""


@dataclass(frozen=True, slots=True)
class SessionsQuery:
    """Asks for the `sessions` of that object."""


@dataclass(frozen=True, slots=True)
class RevokeIds:
    """Ends the sessions with these ids."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RevokeNetwork:
    """Ends every session whose client's address lies in `network`."""

    network: Network


@dataclass(frozen=True, slots=True)
class RevokeAll:
    """Ends every session."""


Revocation: TypeAlias = RevokeIds | RevokeNetwork | RevokeAll
Query: TypeAlias = StatusQuery | SessionsQuery | Revocation


def read_query(line: bytes) -> Query:
    """The request in a line without its end; raise `WireError`."""
    try:
        members = decode_object(line)
    except (ValueError, RecursionError):
        raise WireError("the request is not one JSON object") from None
    version = members.pop("version", None)
    # To Python, true and 1.0 are 1.
    if type(version) is not int or version != VERSION:
        raise WireError(f"this service understands version {VERSION} of the format alone")
    command = members.pop("command", None)
    if command == "revoke":
        return _revocation(members)
    if members:
        raise WireError("the request has a member that is not known")
    if command == "status":
        return StatusQuery()
    if command == "sessions":
        return SessionsQuery()
    raise WireError("the command is none of status, sessions, revoke")


def _revocation(members: dict[str, Any]) -> Revocation:
    match members:
        case {"all": True, **more} if not more:
            return RevokeAll()
        case {"ids": [_, *_] as ids, **more} if not more and _are_texts(ids):
            return RevokeIds(tuple(dict.fromkeys(ids)))
        case {"network": str(text), **more} if not more:
            try:
                return RevokeNetwork(ip_network(text, strict=False))
            except ValueError:
                raise WireError("the network is not one") from None
    raise WireError(
        'revoke takes one of "ids", a list of texts, "network", a text, and "all", true'
    )


def _are_texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def query_line(command: str, **members: object) -> bytes:
    """A request as a client sends it."""
    return _line({"command": command, **members})


def answer_line(members: Mapping[str, object]) -> bytes:
    """An answer as the service sends it."""
    return _line(members)


def error_line(reason: str) -> bytes:
    """The answer to a request that failed."""
    return _line({"error": reason})


def _line(members: Mapping[str, object]) -> bytes:
    return json.dumps({"version": VERSION, **members}).encode() + b"\n"
