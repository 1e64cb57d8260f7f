"""The `envelope` command: each of its commands is a module of this package.

A command's module has `Options` (twisted.python.usage) and `run(options)`, or `main(argv)` when it
reads its command line itself. Only the module of the command that is used is imported.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any, Final, NoReturn

from envelope import __version__
from envelope.text import printable

COMMANDS: Final = {
    "keygen": "make a key pair to sign access tokens with",
    "sign": "sign an access token",
    "jwks": "print the public JWK Set of key files",
    "exec": "open an envelope, and run a command while it is open",
    "rules": "print the exact rules a start would install",
    "check": "try every precondition of a start, and undo it",
    "sessions": "list the open sessions of a running service",
    "revoke": "end sessions of a running service",
    "status": "show the state of a running service",
    "completion": "print the completion for a shell",
    "man": "print the manual page",
    "demo": "show the service at work, on two hosts made of network namespaces",
}


def usage() -> str:
    """The text of `envelope --help`."""
    lines = [f"  {name:10}  {what}" for name, what in COMMANDS.items()]
    return "\n".join([
        "Usage: envelope COMMAND [options]", "",
        "Commands (each has its own --help):", *lines, "",
        "The service itself runs as `twistd envelope [options]`.",
    ])


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit status: 2 for wrong usage, 130 for Ctrl-C, else the command's.

    An error is one line on standard error, never a traceback.
    """
    try:
        return _run(argv)
    except KeyboardInterrupt:
        return 130


def _run(argv: list[str] | None) -> int:
    # Imported here because these take long enough for a Ctrl-C, which `main` handles.
    import traceback

    from twisted.python.usage import UsageError

    from envelope.commands.failing import Failed
    from envelope.runtime.stdout import (
        flush_or_discard,
        open_closed_streams,
        replace_unknown_characters,
    )

    argv = sys.argv[1:] if argv is None else argv
    open_closed_streams()
    replace_unknown_characters()
    name = f"envelope {argv[0]}" if argv and argv[0] in COMMANDS else "envelope"
    try:
        try:
            return _dispatch(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe, as `head` does.
        flush_or_discard()
        return 1
    except UsageError as error:
        _complain(name, str(error))
        return 2
    except Failed as error:
        _complain(name, str(error))
        return 1
    except OSError as error:
        flush_or_discard()
        place = f"{error.filename}: " if error.filename else ""
        _complain(name, f"{place}{error.strerror or 'input or output failed'}")
        return 1
    except Exception as error:
        # The error's text is left out, because it may contain parts of a private key.
        where = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"{type(error).__name__} in {os.path.basename(where.filename)}:{where.lineno}"
        _complain(name, f"internal error ({fault}); please report it")
        return 1


def _dispatch(argv: list[str]) -> int:
    from twisted.python.usage import UsageError

    name, rest = (argv[0], argv[1:]) if argv else ("", [])
    if name in ("--help", "-h", "help"):
        print(usage())
        return 0
    if name == "--version":
        print(__version__)
        return 0
    if name not in COMMANDS:
        given = f"there is no command {name!r}" if name else "a command is needed"
        raise UsageError(f"{given}; envelope --help lists them")
    module = import_module(f"envelope.commands.{name}")
    if hasattr(module, "main"):
        return int(module.main(rest))
    options = type("Options", (module.Options,), {"opt_version": _opt_version})()
    options.synopsis = f"Usage: envelope {name} {options.synopsis}".rstrip()
    options.parseOptions(rest)
    return int(module.run(options))


def _opt_version(_: Any) -> NoReturn:
    """Print the version and exit."""
    print(__version__)
    sys.exit(0)


def _complain(name: str, reason: str) -> None:
    # A standard error that cannot be written is no reason for another exit status.
    with suppress(OSError):
        print(printable(f"{name}: {reason}"), file=sys.stderr, flush=True)
