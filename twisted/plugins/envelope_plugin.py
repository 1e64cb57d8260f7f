"""What makes `twistd envelope` known; everything is named by string, so that it loads late."""

from twisted.application.service import ServiceMaker

serviceMaker = ServiceMaker(  # noqa: N816 (twistd's own spelling)
    "envelope",
    "envelope.twistd",
    "Open this host's firewall for one authorised client at a time.",
    "envelope",
)
