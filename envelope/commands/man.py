"""`envelope man`: print the manual page."""

from __future__ import annotations

import sys

from twisted.python import usage


class Options(usage.Options):
    """The command line."""

    synopsis = ""
    longdesc = (
        "Prints the manual page of envelope in the format of man(7); envelope man | man -l - "
        "shows it."
    )


def run(options: Options) -> int:  # noqa: ARG001
    """Print the page."""
    from envelope.commands.interface import commands, service_options
    from envelope.commands.manpage import manual_page

    sys.stdout.write(manual_page(list(commands()), service_options()))
    return 0
