"""The plugin that makes `twistd envelope` known; twistd imports the module it names when needed."""

import sys

from twisted.application.service import ServiceMaker

# The earliest that our code runs. Every twistd imports this, so only ours is touched.
if "envelope" in sys.argv[1:]:
    from envelope.runtime.signals import signals
    from envelope.runtime.stdout import open_closed_streams

    signals.handle_all()
    open_closed_streams()

serviceMaker = ServiceMaker(  # noqa: N816 (twistd's own spelling)
    "envelope",
    "envelope.twistd",
    "Open this host's firewall for clients with a valid access token.",
    "envelope",
)
