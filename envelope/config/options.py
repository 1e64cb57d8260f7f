"""Reads a command line and an environment into one `Config`, or refuses them with one line.

`envelope.config` declares the options, `envelope.config.checks` compares them with each other.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from twisted.python import usage

from envelope import __version__
from envelope.config import OPTIONS, Config
from envelope.config.checks import THIS_MACHINE, Machine, checked
from envelope.config.fields import Option
from envelope.config.values import path

PREFIX: Final = "ENVELOPE_"
# Docker's --env-file, for one, keeps the quotes of NAME="value".
_QUOTES: Final = ('"', "'")
# Variables with this prefix belong to the project's own tests.
TEST_PREFIX: Final = "ENVELOPE_TEST_"
# Kubernetes describes a Service named "envelope" or "envelope-..." in the environment of every pod
# (kubernetes.io, "Accessing the Service", environment variables).
_SERVICE_LINK: Final = re.compile(
    r"ENVELOPE_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?"
    r"|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_SERVICE_LINK_PORT: Final = re.compile(r"(?:tcp|udp|sctp)://.*")

# Columns of `--help`: where an option's text begins, and the widest line on a wide terminal.
_HELP_INDENT: Final = 34
_HELP_WIDTH: Final = 100


def parse(
    argv: Sequence[str], environ: Mapping[str, str], machine: Machine = THIS_MACHINE
) -> Config:
    """The settings; raise `UsageError` with one line that names the wrong option."""
    options = ServiceOptions(environ, machine)
    untyped: Any = options
    untyped.parseOptions(list(argv))
    return options.config


class ServiceOptions(usage.Options):
    """The options of the service, for `twisted.python.usage`.

    `config` has its final value once `parseOptions` has returned.
    """

    synopsis = "[options]"
    longdesc = (
        "Opens this host's firewall for clients with a valid access token. Every option can also "
        "be set in the environment: ENVELOPE_ and its name in upper case, dashes as underscores, "
        "such as ENVELOPE_MAX_CLIENTS=5; values of options that may be given several times are "
        "separated by commas there. The command line wins. SIGTERM stops the service and puts the "
        "rules back; SIGHUP reads keys and certificate again."
    )

    def __init__(
        self, environ: Mapping[str, str] | None = None, machine: Machine = THIS_MACHINE
    ) -> None:
        self.given: dict[str, list[str]] = {}
        self.config = Config()
        self._environ = os.environ if environ is None else environ
        self._machine = machine
        untyped: Any = super()
        untyped.__init__()

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        print(f"envelope {__version__}")  # noqa: T201
        raise SystemExit(0)

    def parseArgs(self, *args: str) -> None:
        """Refuse arguments that are not options."""
        if args:
            raise usage.UsageError(f"{args[0]!r} is not an option")

    def postOptions(self) -> None:
        """Make `config` from the command line and the environment."""
        self.config = checked(_values(self.given, self._environ), self._machine)

    def getUsage(self, width: int | None = None) -> str:
        """The options in groups, in the order of `Config`, and what is common to them."""
        width = width or min(shutil.get_terminal_size().columns, _HELP_WIDTH)
        lines = []
        for option in OPTIONS:
            if option.heading:
                lines += ["", f"{option.heading}:"]
            lines += _help_lines(f"{option.name}=", option.help, width)
        lines += ["", "Other:"]
        lines += _help_lines("help", "Print this help and exit.", width)
        lines += _help_lines("version", "Print the version and exit.", width)
        return "\n".join([*lines, "", *textwrap.wrap(self.longdesc, width), ""])


def _help_lines(name: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, max(width, 2 * _HELP_INDENT), initial_indent=f"  --{name}".ljust(_HELP_INDENT),
        subsequent_indent=" " * _HELP_INDENT, break_on_hyphens=False,
    )


def _handler(option: Option) -> Callable[[ServiceOptions, str], None]:
    def take(options: ServiceOptions, value: str) -> None:
        if not option.many:
            options.given.pop(option.field, None)
        options.given.setdefault(option.field, []).append(value)

    take.__doc__ = option.help
    return take


# `usage.Options` calls a method for each time an option is given; its other ways keep only the
# last value.
for _option in OPTIONS:
    setattr(ServiceOptions, f"opt_{_option.field}", _handler(_option))


def _values(given: Mapping[str, list[str]], environ: Mapping[str, str]) -> dict[str, Any]:
    """The values of the options that were given, by field; the command line wins."""
    _refuse_unknown(environ)
    values: dict[str, Any] = {}
    for option in OPTIONS:
        if option.field in given:
            texts = given[option.field]
            values[option.field] = _read(option, texts, f"--{option.name}", environ)
        elif option.variable in environ:
            text = environ[option.variable]
            texts = [part.strip() for part in text.split(",")] if option.many else [text]
            source = f"--{option.name} (from {option.variable})"
            values[option.field] = _read(option, texts, source, environ)
    return values


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = {option.variable for option in OPTIONS}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name.startswith(TEST_PREFIX) or name in known:
            continue
        port = name.endswith("_PORT") and _SERVICE_LINK_PORT.fullmatch(environ[name])
        if port or _SERVICE_LINK.fullmatch(name):
            continue
        close = difflib.get_close_matches(name, known, 1, 0.8)
        hint = f"; {close[0]} is" if close else ""
        raise usage.UsageError(f"{name} in the environment is not an option{hint}")


def _read(
    option: Option, texts: list[str], source: str, environ: Mapping[str, str]
) -> Any:
    """The value of one option; `source` says where the texts come from."""
    try:
        if not all(texts):
            raise ValueError("the value is empty")
        for text in texts:
            if text.startswith(_QUOTES) or text.endswith(_QUOTES):
                raise ValueError(f"{text[:80]!r} has a quote at an end, as files of environment "
                                 "variables keep them: remove the quotes")
        if option.read is path:
            texts = [_with_credentials(text, environ) for text in texts]
        if option.none and "none" in texts:
            if len(texts) > 1:
                raise ValueError("'none' cannot be combined with anything else")
            return ()
        values = [option.read(text) for text in texts]
    except ValueError as error:
        raise usage.UsageError(f"{source}: {error}") from None
    return tuple(dict.fromkeys(values)) if option.many else values[0]


def _with_credentials(text: str, environ: Mapping[str, str]) -> str:
    """A path with the folder of systemd's LoadCredential= (systemd.exec(5)) where it begins so.

    systemd itself puts it into a unit's command line, but not into a file of environment variables.
    """
    for name in ("$CREDENTIALS_DIRECTORY/", "${CREDENTIALS_DIRECTORY}/"):
        if text.startswith(name):
            folder = environ.get("CREDENTIALS_DIRECTORY")
            if not folder:
                raise ValueError(f"{text[:80]!r}: CREDENTIALS_DIRECTORY is not set")
            return f"{folder}/{text.removeprefix(name)}"
    return text
