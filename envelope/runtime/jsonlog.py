"""The log as JSON: one object a line, for those that collect logs (`--log-format=json`).

Each has `time` (RFC 3339, UTC), `level`, `namespace` and `message`; our own events also what the
message was made of, such as a session's `id`, and a failure has its `traceback`. Twisted's own
JSON observer would write every detail of every event, objects by their repr.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

from twisted.logger import ILogObserver, LogEvent, formatEvent
from twisted.python.usage import UsageError
from twisted.scripts._twistd_unix import UnixAppLogger

_OWN: Final = "envelope"
_PLAIN: Final = (str, int, float, bool, type(None))


def as_json(event: LogEvent) -> str | None:
    """One event as one line, its end included; None when it has nothing to say."""
    failure = event.get("log_failure")
    message = formatEvent(event) or (failure.getErrorMessage() if failure else "")
    if not message:
        return None
    namespace = event.get("log_namespace") or event.get("log_system") or "-"
    told: dict[str, object] = {}
    if namespace.partition(".")[0] == _OWN:
        told |= {
            name: value if isinstance(value, _PLAIN) else str(value)
            for name, value in event.items() if not name.startswith("log_")
        }
    if failure is not None:
        told["traceback"] = failure.getTraceback()
    moment = datetime.fromtimestamp(event.get("log_time", 0.0), UTC)
    level = event.get("log_level")
    told |= {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level.name if level else "info",
        "namespace": namespace,
        "message": message,
    }
    order = ("time", "level", "namespace", "message")
    return json.dumps({name: told[name] for name in (*order, *told)}) + "\n"


class JsonLog:
    """Makes twistd's log JSON, wherever twistd's own options send it.

    twistd knows a maker of observers only by its name, and calls it without arguments: so the one
    instance below has to be told beforehand, by `choose`.
    """

    def __init__(self) -> None:
        self._options: Mapping[str, Any] = {}

    def choose(self, twistd_options: Any) -> None:
        """Make twistd use `observer`; raise `UsageError` with options that ask for another log."""
        for name in ("syslog", "logger"):
            if twistd_options[name]:
                raise UsageError(f"--log-format=json and twistd's --{name} exclude each other")
        self._options = twistd_options
        twistd_options["logger"] = f"{__name__}.json_log.observer"

    def observer(self) -> ILogObserver:
        """Twistd's own observer for its destination (`--logfile`), with another format."""
        destination = {name: self._options.get(name) for name in ("logfile", "nodaemon")}
        # The method is private in name, but AppLogger's own documented place to be overridden.
        observer: Any = UnixAppLogger(destination)._getLogObserver()
        observer.formatEvent = as_json
        return cast(ILogObserver, observer)


json_log: Final = JsonLog()
