"""`envelope sessions`: list the open sessions of a running service."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from envelope.commands.controlclient import ControlOptions
from envelope.commands.tables import amount, lasting, table
from envelope.runtime.stdout import terminal_width


class Options(ControlOptions):
    """The command line."""

    synopsis = "[--json] [--control PATH]"
    longdesc = (
        "Lists the open sessions of the service that runs on this host: their ids, for envelope "
        "revoke, their clients, how much longer they last, and what their grants have let in."
    )
    optFlags = [  # noqa: RUF012
        ["json", None, "print the sessions as a JSON list, as in /status"],
    ]


def run(options: Options) -> int:
    """Print the table, or the list."""
    sessions = options.ask("sessions")["sessions"]
    if options["json"]:
        print(json.dumps(sessions))
    elif sessions:
        print(sessions_table(sessions, time.time(), terminal_width()))
    else:
        print("no session is open")
    return 0


def sessions_table(
    sessions: Sequence[Mapping[str, Any]], now: float, width: int | None
) -> str:
    """The table of `sessions`, objects as in `/status`; `now` is in seconds since the epoch."""
    return table(
        ("ID", "ADDRESS", "SUBJECT", "FOR", "LEFT", "PACKETS", "BYTES", "CLAIMS"),
        [_row(each, now) for each in sessions], width, right=(3, 4, 5, 6), kept=2,
    )


def _row(session: Mapping[str, Any], now: float) -> tuple[str, ...]:
    packets = session["packets"]
    return (
        str(session["id"]), str(session["address"] or "-"), str(session["subject"] or "-"),
        lasting(now - session["since"]), lasting(session["until"] - now),
        "-" if packets is None else str(packets), amount(session["bytes"]),
        " ".join(f"{name}={value}" for name, value in session["claims"].items()),
    )
