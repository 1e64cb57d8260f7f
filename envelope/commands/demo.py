"""`envelope demo`: the main job, shown for real on two hosts made of namespaces."""

from __future__ import annotations

from twisted.python import usage

from envelope.lab import demo


class Options(usage.Options):
    """The command line."""

    synopsis = ""
    longdesc = (
        "Shows a client refused, let in with a token, measuring, and refused again after the "
        "deadline: the real service, real iptables and real TLS, in network namespaces of their "
        "own. Touches nothing else of this machine and ends by itself in under a minute."
    )


def run(options: Options) -> int:  # noqa: ARG001
    """Show it; 0 only if every step went as told."""
    return demo.main()
