"""A program that starts twistd many times but imports everything only once: it forks.

It reads orders in JSON, one a line: `{"start": [twistd's arguments], "to": a FIFO for its output}`
is answered with the process id, `{"wait": pid}` with the exit status. Each child runs twistd's own
main function and makes its own reactor.
"""

import json
import os
import sys

import autobahn.twisted.websocket
import twisted.internet.epollreactor
import twisted.scripts._twistd_unix
from twisted.scripts.twistd import run

import envelope.service

assert "twisted.internet.reactor" not in sys.modules, "the reactor was made before the fork"
IMPORTED = (autobahn.twisted.websocket, twisted.internet.epollreactor,
            twisted.scripts._twistd_unix, envelope.service)


def serve():
    """Carry out orders; returns only in a child, which then runs twistd."""
    print("up", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        child = os.fork()
        if child == 0:
            output = os.open(order["to"], os.O_WRONLY)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for target, source in ((0, nothing), (1, output), (2, output)):
                os.dup2(source, target)
            os.close(output)
            os.close(nothing)
            sys.argv = ["twistd", *order["start"]]
            return
        print(child, flush=True)
    os._exit(0)


serve()
run()
