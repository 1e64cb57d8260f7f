"""The log as JSON, one object a line (`--log-format=json`).

Each object has `time` (RFC 3339, UTC), `level`, `namespace` and `message`. Our own events also have
the values that the message was formatted with, such as a session's `id`; failures have their
`traceback`. Twisted's own JSON observer would write every field of every event, with the repr of
objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

from twisted.logger import ILogObserver, LogEvent, formatEvent
from twisted.python.usage import UsageError
from twisted.scripts._twistd_unix import UnixAppLogger

from envelope.runtime.internals import require

require(UnixAppLogger, "_getLogObserver")

_OWN: Final = "envelope"
_PLAIN: Final = (str, int, float, bool, type(None))


def as_json(event: LogEvent) -> str | None:
    """One event as one line with its line end; None for an event without a message."""
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
    return json.dumps({name: fields[name] for name in (*order, *fields)}) + "\n"


class JsonLog:
    """Makes twistd's log JSON, at the destination that twistd's own options name.

    twistd finds the function that makes the observer by its dotted name, and calls it without
    arguments. So `choose` stores the options on the one instance below.
    """

    def __init__(self) -> None:
        self._options: Mapping[str, Any] = {}

    def choose(self, twistd_options: Any) -> None:
        """Make twistd use `observer`; raise `UsageError` if the options ask for another log."""
        for name in ("syslog", "logger"):
            if twistd_options[name]:
                raise UsageError(f"--log-format=json and twistd's --{name} exclude each other")
        self._options = twistd_options
        twistd_options["logger"] = f"{__name__}.json_log.observer"

    def observer(self) -> ILogObserver:
        """The observer that twistd would use (`--logfile`), with another format."""
        destination = {name: self._options.get(name) for name in ("logfile", "nodaemon")}
        # Private by name, but documented in AppLogger as the method to override.
        observer: Any = UnixAppLogger(destination)._getLogObserver()
        observer.formatEvent = as_json
        return cast(ILogObserver, observer)


json_log: Final = JsonLog()
