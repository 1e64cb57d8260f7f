"""Runs twistd with one method broken: brokenstart.py CLASS.METHOD python twistd ..."""

import sys
from importlib import import_module
from typing import NoReturn

from twisted.scripts.twistd import run

MODULES = {
    "Credentials": "envelope.credentials.current",
    "Collector": "envelope.runtime.collector",
    "EnvelopeService": "envelope.service",
    "Sessions": "envelope.sessions.registry",
}


def main() -> None:
    """Break it, and become twistd."""
    sys.argv.pop(0)
    name, _, method = sys.argv.pop(0).partition(".")
    # The interpreter, which is this one.
    sys.argv.pop(0)

    def broken(*_: object) -> NoReturn:
        raise RuntimeError("broken for a test")

    setattr(getattr(import_module(MODULES[name]), name), method, broken)
    run()


if __name__ == "__main__":
    main()
