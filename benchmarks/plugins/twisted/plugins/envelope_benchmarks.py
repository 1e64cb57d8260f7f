"""For the benchmarks' own twistd: a reactor that times itself, and the reference's way."""

from twisted.application.reactors import Reactor
from twisted.application.service import ServiceMaker

timed = Reactor("timed", "benchmarks.timedreactor", "epoll, with a clock on each event.")
reference = ServiceMaker(
    "envelope-reference", "benchmarks.reference",
    "The service with three iptables processes in, three out.", "envelope-reference",
)
traced = ServiceMaker(
    "envelope-traced", "benchmarks.tracedservice",
    "The service, with the moments of each grant recorded.", "envelope-traced",
)
bare = ServiceMaker(
    "envelope-bare", "benchmarks.bare", "A server of the fixed packages alone.", "envelope-bare",
)
alone = ServiceMaker(
    "envelope-toolalone", "benchmarks.toolalone",
    "The service with the kernel's tool and no more of a firewall.", "envelope-toolalone",
)
