"""Command line and environment become one frozen `Config`; whatever makes no sense is refused.

`envelope.config.table` says which options there are, `envelope.config.checks` which go together.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from twisted.python import usage

from envelope import __version__
from envelope.config import Config
from envelope.config.checks import THIS_MACHINE, Machine, checked
from envelope.config.table import TABLE, Option

PREFIX: Final = "ENVELOPE_"
# Variables that the service's own tests may set for themselves.
TEST_PREFIX: Final = "ENVELOPE_TEST_"
# Kubernetes puts a Service named "envelope" or "envelope-..." into the environment of every pod
# (kubernetes.io, "Accessing the Service", environment variables).
_SERVICE_LINK: Final = re.compile(
    r"ENVELOPE_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?"
    r"|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_SERVICE_LINK_PORT: Final = re.compile(r"(?:tcp|udp|sctp)://.*")


def parse(
    argv: Sequence[str], environ: Mapping[str, str], machine: Machine = THIS_MACHINE
) -> Config:
    """Read everything; raise `UsageError` with one line naming what is wrong."""
    options = ServiceOptions(environ, machine)
    untyped: Any = options
    untyped.parseOptions(list(argv))
    return options.config


class ServiceOptions(usage.Options):
    """The options of the service; `config` is there once they are parsed."""

    synopsis = "[options]"
    longdesc = (
        "Opens this host's firewall for one authorised client at a time. Every option can also "
        "be set in the environment: ENVELOPE_ and its name in upper case, dashes as underscores, "
        "such as ENVELOPE_MAX_CLIENTS=5; values of options that may be given several times are "
        "separated by commas there. The command line wins. SIGTERM stops cleanly and puts the "
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
        """Nothing but options is understood."""
        if args:
            raise usage.UsageError(f"{args[0]!r} is not an option")

    def postOptions(self) -> None:
        """Make `config` from what was given here and in the environment."""
        found = _collect(self.given, self._environ)
        self.config = checked(found, self._machine)


def _handler(option: Option) -> Callable[[ServiceOptions, str], None]:
    def take(options: ServiceOptions, value: str) -> None:
        if not option.many:
            options.given.pop(option.name, None)
        options.given.setdefault(option.name, []).append(value)

    take.__doc__ = option.help
    return take


# usage.Options finds options by the names of methods; only a method hears of each repetition.
for _option in TABLE:
    setattr(ServiceOptions, f"opt_{_option.field}", _handler(_option))


def _collect(given: Mapping[str, list[str]], environ: Mapping[str, str]) -> dict[str, Any]:
    """The values that were given, by field; the command line wins."""
    _refuse_unknown(environ)
    found: dict[str, Any] = {}
    for option in TABLE:
        if option.name in given:
            found[option.field] = _read(option, given[option.name], f"--{option.name}")
        elif option.variable in environ:
            text = environ[option.variable]
            texts = [part.strip() for part in text.split(",")] if option.many else [text]
            source = f"--{option.name} (from {option.variable})"
            found[option.field] = _read(option, texts, source)
    return found


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = {option.variable for option in TABLE}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name.startswith(TEST_PREFIX) or name in known:
            continue
        port = name.endswith("_PORT") and _SERVICE_LINK_PORT.fullmatch(environ[name])
        if port or _SERVICE_LINK.fullmatch(name):
            continue
        close = difflib.get_close_matches(name, known, 1, 0.8)
        hint = f"; {close[0]} is" if close else ""
        raise usage.UsageError(f"{name} in the environment is not an option{hint}")


def _read(option: Option, texts: list[str], source: str) -> Any:
    try:
        if not all(texts):
            raise ValueError("the value is empty")
        if option.none and "none" in texts:
            if len(texts) > 1:
                raise ValueError("'none' cannot be combined with anything else")
            return ()
        values = [option.read(text) for text in texts]
    except ValueError as error:
        raise usage.UsageError(f"{source}: {error}") from None
    return tuple(dict.fromkeys(values)) if option.many else values[0]
