"""`envelope completion`: print a shell's completion of this program."""

from __future__ import annotations

import sys
from typing import Final

from twisted.python import usage

from envelope.commands.values import words

_SHELLS: Final = ("bash", "zsh", "fish")


class Options(usage.Options):
    """The command line."""

    synopsis = "bash|zsh|fish"
    longdesc = (
        "Prints a script that completes commands, options and values of envelope. bash: put it "
        "into ~/.local/share/bash-completion/completions/envelope. zsh: into a file _envelope in "
        "a folder of $fpath. fish: into ~/.config/fish/completions/envelope.fish."
    )
    arguments: Final = words(*_SHELLS)

    def parseArgs(self, shell: str = "", *more: str) -> None:
        """Take the shell."""
        if shell not in _SHELLS or more:
            raise usage.UsageError("one of bash, zsh and fish is needed")
        self.shell = shell


def run(options: Options) -> int:
    """Print the script."""
    from envelope.commands.interface import commands
    from envelope.commands.shells import SHELLS

    sys.stdout.write(SHELLS[options.shell](list(commands())))
    return 0
