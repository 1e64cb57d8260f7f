"""The manual page, in the macros of man(7), made from what `interface` knows. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from envelope._version import __version__
from envelope.commands.interface import Command, CommandOption
from envelope.commands.values import Kind

# When the text of this module changed last.
_DATE: Final = "2026-11-28"

_DESCRIPTION: Final = (
    "envelope opens a host's firewall for exactly one authorised client, and shuts it again. A "
    "client opens a WebSocket with an access token; the service verifies the token, lets the "
    "client's address through the kernel's rules, and shuts it out again when the client leaves or "
    "its time is up. Everything else that arrives on the guarded device is refused.",
    "The service runs in twistd(1); `envelope COMMAND` are the commands around it.",
)
_SIGNALS: Final = (
    ("SIGTERM, SIGINT, SIGQUIT",
     "Stop: accept no more clients, wait for open sessions for at most --drain, remove the grants, "
     "put the rules back, and exit with 0."),
    ("SIGHUP", "Read keys and certificate again."),
    ("SIGUSR1", "Open the log file again."),
)
_ENVIRONMENT: Final = (
    ("ENVELOPE_...",
     "Every option of the service: its name in upper case, dashes as underscores, such as "
     "ENVELOPE_MAX_CLIENTS=5; several values are separated by commas. The command line wins. "
     "sessions, revoke and status read ENVELOPE_CONTROL."),
    ("PATH", "Where the firewall's tools are looked for, besides /usr/sbin and /sbin."),
    ("SSH_CONNECTION", "The login that a start must not cut off."),
    ("RUNTIME_DIRECTORY", "Where the control socket is by default."),
    ("NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID, LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES, "
     "JOURNAL_STREAM", "What systemd(1) sets."),
)
_STATUS: Final = (
    ("0", "It is done; of the service: a clean stop."),
    ("1", "It cannot be done: one line on standard error says why."),
    ("2", "Wrong usage of a command. Wrong options of the service are 1."),
)


def manual_page(commands: Sequence[Command], service: Sequence[CommandOption]) -> str:
    """The whole page."""
    return "\n".join(_lines(commands, service)) + "\n"


def _lines(commands: Sequence[Command], service: Sequence[CommandOption]) -> Iterator[str]:
    yield f'.TH ENVELOPE 1 "{_DATE}" "envelope {_text(__version__)}" "User Commands"'
    yield ".SH NAME"
    yield _text("envelope - open a host's firewall for one authorised client at a time")
    yield ".SH SYNOPSIS"
    yield r"\fBtwistd\fR [\fItwistd options\fR] \fBenvelope\fR [\fIoptions\fR]"
    yield ".PP"
    yield r"\fBenvelope\fR \fICOMMAND\fR [\fIoptions\fR]"
    yield ".SH DESCRIPTION"
    yield from _paragraph(_DESCRIPTION[0])
    yield ".PP"
    yield from _paragraph(_DESCRIPTION[1])
    yield ".SH OPTIONS OF THE SERVICE"
    for option in service:
        if option.heading:
            yield f".SS {_text(option.heading)}"
        yield from _option(option)
    yield ".SH COMMANDS"
    for command in commands:
        yield f".SS {_text(f'envelope {command.name} {command.synopsis}'.rstrip())}"
        yield from _paragraph(command.description)
        for option in command.options:
            if option.name != "help":
                yield from _option(option)
    for heading, entries in (
        ("SIGNALS", _SIGNALS), ("ENVIRONMENT", _ENVIRONMENT), ("EXIT STATUS", _STATUS),
    ):
        yield f".SH {heading}"
        for name, meaning in entries:
            yield from (".TP", rf"\fB{_text(name)}\fR", *_paragraph(meaning))
    yield ".SH SEE ALSO"
    yield ".BR twistd (1),"
    yield ".BR iptables (8),"
    yield ".BR nft (8)"


def _option(option: CommandOption) -> Iterator[str]:
    yield ".TP"
    value = ""
    if option.value is not None:
        words = option.value.words
        name = "|".join(words) if words else "PATH" if option.value.kind is Kind.FILE else "VALUE"
        value = rf"=\fI{_text(name)}\fR"
    yield rf"\fB{_text(f'--{option.name}')}\fR{value}"
    yield from _paragraph(option.meaning)


def _paragraph(text: str) -> Iterator[str]:
    """`text` on lines that roff joins; mandoc's lint wants none of more than 80 bytes."""
    wrapped = textwrap.wrap(text, 70, break_long_words=False, break_on_hyphens=False)
    return map(_text, wrapped)


def _text(text: str) -> str:
    """`text` so that roff shows it as it is, on one line of input."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + escaped if escaped.startswith((".", "'")) else escaped
