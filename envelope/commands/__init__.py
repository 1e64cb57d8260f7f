"""The `envelope` command: what goes with the service, each part in a module of its own.

A command's module offers `Options` (twisted.python.usage) and `run(options)`, or, when it takes
its whole command line itself, `main(argv)`.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Final

from twisted.python.usage import UsageError

from envelope import __version__

COMMANDS: Final = {
    "keygen": "make a key pair to sign access tokens with",
    "sign": "sign an access token",
    "jwks": "print the public JWK Set of key files",
    "rules": "print the exact rules a start would install",
    "demo": "show the whole thing at work on this machine, in namespaces of its own",
}


def usage() -> str:
    """What there is, for people."""
    lines = [f"  {name:8}  {what}" for name, what in COMMANDS.items()]
    return "\n".join([
        "Usage: envelope COMMAND [options]", "",
        "Commands (each explains itself with --help):", *lines, "",
        "The service itself runs as `twistd envelope [options]`.",
    ])


def main(argv: list[str] | None = None) -> int:
    """Run one command; 2 for wrong usage, 130 when interrupted, else the command's own status."""
    try:
        return _main(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has had enough; the interpreter must not complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _main(argv: list[str]) -> int:
    name, rest = (argv[0], argv[1:]) if argv else ("", [])
    if name in ("--help", "-h", "help"):
        print(usage())
        return 0
    if name == "--version":
        print(__version__)
        return 0
    if name not in COMMANDS:
        given = f"there is no command {name!r}" if name else "a command is needed"
        print(f"envelope: {given}; envelope --help lists them", file=sys.stderr)
        return 2
    module = import_module(f"envelope.commands.{name}")
    if hasattr(module, "main"):
        return int(module.main(rest))
    options = module.Options()
    options.synopsis = f"envelope {name} {getattr(options, 'synopsis', '[options]')}"
    try:
        options.parseOptions(rest)
        return int(module.run(options))
    except UsageError as error:
        print(f"envelope {name}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"envelope {name}: {error.filename or ''}: {error.strerror}", file=sys.stderr)
        return 1
