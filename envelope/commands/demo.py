"""`envelope demo`: show the real service at work, on two hosts made of network namespaces."""

from __future__ import annotations

from twisted.python import usage

from envelope.lab import demo


class Options(usage.Options):
    """The command line."""

    synopsis = ""
    longdesc = (
        "Shows a client that is refused, let in with a token, measures, and is refused again after "
        "the deadline. The service, iptables and TLS are the real ones, in network namespaces of "
        "their own. Changes nothing else on this machine and ends by itself in under a minute."
    )


def run(options: Options) -> int:  # noqa: ARG001
    """Run the demo; the exit status is 0 only if every step had the expected result."""
    return demo.main()
