"""`envelope status`: show the state of a running service."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from envelope.commands.controlclient import ControlOptions
from envelope.commands.sessions import sessions_table
from envelope.commands.tables import lasting
from envelope.runtime.stdout import terminal_width
from envelope.text import printable


class Options(ControlOptions):
    """The command line."""

    synopsis = "[--json] [--control PATH]"
    longdesc = (
        "Shows the state of the service that runs on this host: whether it lets clients in, its "
        "sessions, refusals by reason, rules that are missing or stray, keys, and warnings."
    )
    optFlags = [  # noqa: RUF012
        ["json", None, "print the whole object, as /status has it"],
    ]


def run(options: Options) -> int:
    """Print the state."""
    status = options.ask("status")["status"]
    if options["json"]:
        print(json.dumps(status))
        return 0
    for line in status_lines(status):
        print(printable(line))
    if status["sessions"]:
        print()
        print(sessions_table(status["sessions"], status["now"], terminal_width()))
    return 0


def status_lines(status: Mapping[str, Any]) -> Iterator[str]:
    """Lines for people about the object of `/status`, without its sessions."""
    slots = status["slots"]
    yield f"envelope {status['version']}, up {lasting(status['uptime'])}"
    yield "ready" if status["ready"] else f"not ready: {'; '.join(status['reasons'])}"
    yield f"slots: {slots['used']} of {slots['total']} used"
    if status["tx_bits_per_second"] is not None:
        yield _rate(status["tx_bits_per_second"], status["options"])
    refused = [f"{reason}: {number}" for reason, number in status["refusals"].items() if number]
    yield f"refused: {', '.join(refused) or 'nobody'}"
    yield from _rules(status["rules"])
    for key in status["keys"]:
        age = lasting(status["now"] - key["since"])
        yield f"key {key['kid']}: {key['alg']}, from --{key['source']}, in use for {age}"
    certificate = status["certificate"]
    if certificate is not None:
        left = certificate["not_after"] - status["now"]
        how_long = f"expires in {lasting(left)}" if left > 0 else f"expired {lasting(-left)} ago"
        yield f"certificate for {', '.join(certificate['names'])}: {how_long}"
    for warning in status["warnings"]:
        yield f"warning: {warning}"


def _rate(rate: float, options: Mapping[str, Any]) -> str:
    limit = options["tx-max-rate"]
    most = "" if limit is None else f" of at most {limit / 1e6:.1f}"
    return f"{options['tx-device']} sends {rate / 1e6:.1f}{most} Mbit/s"


def _rules(rules: Mapping[str, list[str]]) -> Iterator[str]:
    wanted, held = rules["wanted"], rules["held"]
    in_force, asked_for = frozenset(held), frozenset(wanted)
    missing = [line for line in wanted if line not in in_force]
    stray = [line for line in held if line not in asked_for]
    yield f"rules: {len(wanted) - len(missing)} of {len(wanted)} in force"
    for line in missing:
        yield f"  missing: {line}"
    for line in stray:
        yield f"  stray: {line}"
