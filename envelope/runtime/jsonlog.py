"""The log as JSON, one object a line (`--log-format=json`).

Each object has `time` (RFC 3339, UTC), `level`, `namespace` and `message`. Our own events also have
the values that the message was formatted with, such as a session's `id`; failures have their
`traceback`. Twisted's own JSON observer would write every field of every event, with the repr of
objects.

Addresses are hidden before a text becomes JSON. In JSON, many characters are escapes that end in
hexadecimal digits, which would look like the beginning of an address behind them.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Final

from twisted.logger import LogEvent, formatEvent

from envelope.runtime.addressmask import Shown, masked

_OWN: Final = "envelope"
_PLAIN: Final = (str, int, float, bool, type(None), dict)


def as_json(event: LogEvent, addresses: Shown = "full") -> str | None:
    """One event as one line with its line end; None for an event without a message.

    `addresses` says what every text in it may show of addresses.
    """
    failure = event.get("log_failure")
    message = formatEvent(event) or (failure.getErrorMessage() if failure else "")
    if not message:
        return None
    namespace = event.get("log_namespace") or event.get("log_system") or "-"
    fields: dict[str, object] = {}
    if namespace.partition(".")[0] == _OWN:
        fields |= {
            name: value if isinstance(value, _PLAIN) else str(value)
            for name, value in event.items() if not name.startswith("log_")
        }
    if failure is not None:
        fields["traceback"] = failure.getTraceback()
    moment = datetime.fromtimestamp(event.get("log_time", 0.0), UTC)
    level = event.get("log_level")
    fields |= {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level.name if level else "info",
        "namespace": namespace,
        "message": message,
    }
    order = ("time", "level", "namespace", "message")
    ordered = {name: fields[name] for name in (*order, *fields)}
    return json.dumps(ordered if addresses == "full" else _hidden(ordered, addresses)) + "\n"


def _hidden(value: object, addresses: Shown) -> object:
    """What JSON is made of, with the addresses hidden in each text."""
    if isinstance(value, str):
        return masked(value, addresses)
    if isinstance(value, dict):
        return {name: _hidden(each, addresses) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(each, addresses) for each in value]
    return value
