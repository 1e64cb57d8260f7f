"""The plugin that makes `twistd envelope` known; twistd imports the module it names when needed."""

from twisted.application.service import ServiceMaker

serviceMaker = ServiceMaker(  # noqa: N816 (twistd's own spelling)
    "envelope",
    "envelope.twistd",
    "Open this host's firewall for clients with a valid access token.",
    "envelope",
)
