"""`envelope revoke`: end sessions of a running service."""

from __future__ import annotations

import getopt
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Final

from twisted.python import usage

from envelope.commands.controlclient import CONTROL_PARAMETER, ControlOptions
from envelope.commands.failing import Failed
from envelope.commands.values import SESSIONS


class Options(ControlOptions):
    """The command line."""

    synopsis = "ID... | --network N | --all [--control PATH]"
    longdesc = (
        "Ends sessions of the service that runs on this host; envelope sessions lists their ids. "
        "Their grants are gone when the command ends, and their clients get the close code 4001. "
        "Exits with 1 if there is no such session."
    )
    arguments: Final = SESSIONS
    optParameters = [  # noqa: RUF012
        ["network", None, None, "end every session whose client's address lies in this network"],
        CONTROL_PARAMETER,
    ]
    optFlags = [["all", None, "end every session"]]  # noqa: RUF012

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the command line; options may follow the ids."""
        flags = [*(str(each[0]) for each in self.optFlags), "help", "version"]
        with_value = [f"{each[0]}=" for each in self.optParameters]
        try:
            found, ids = getopt.gnu_getopt(list(options or ()), "", flags + with_value)
        except getopt.GetoptError as error:
            raise usage.UsageError(str(error)) from None
        words = [
            f"{name}={value}" if f"{name[2:]}=" in with_value else name for name, value in found
        ]
        usage.Options.parseOptions(self, [*words, "--", *ids])

    def parseArgs(self, *ids: str) -> None:
        """Keep the ids."""
        self.ids = ids

    def postOptions(self) -> None:
        """Refuse a command line that does not say exactly one thing."""
        super().postOptions()
        if (bool(self.ids) + (self["network"] is not None) + bool(self["all"])) != 1:
            raise usage.UsageError("give either IDs, --network N or --all")
        if self["network"] is not None:
            try:
                ip_network(self["network"], strict=False)
            except ValueError:
                raise usage.UsageError(f"--network: {self['network']!r} is no network") from None


def run(options: Options) -> int:
    """Revoke, and say how many sessions have ended."""
    if options.ids:
        answer = options.ask("revoke", ids=options.ids)
    elif options["all"]:
        answer = options.ask("revoke", all=True)
    else:
        answer = options.ask("revoke", network=options["network"])
    number = answer["revoked"]
    unknown = answer["unknown"]
    if unknown:
        ended = f" ({number} ended)" if number else ""
        raise Failed(f"there is no session {', '.join(unknown)}{ended}")
    if not number and not options["all"]:
        raise Failed(f"there is no session in {options['network']}")
    print(f"{number} session{'' if number == 1 else 's'} ended")
    return 0
