"""Starts twistd many times for the price of once: everything is imported, then forked.

A program that is told what to do line by line, in JSON: `{"start": [twistd's arguments], "to": a
FIFO for its output}` answers with the process id, `{"wait": pid}` with the exit status. Each child
runs twistd's own main and makes its own reactor.
"""

import json
import os
import sys

import autobahn.twisted.websocket
import twisted.internet.epollreactor
import twisted.scripts._twistd_unix
from twisted.scripts.twistd import run

import envelope.service

assert "twisted.internet.reactor" not in sys.modules, "each child has to make its own"
IMPORTED = (autobahn.twisted.websocket, twisted.internet.epollreactor,
            twisted.scripts._twistd_unix, envelope.service)


def serve():
    """Do as told; returns in a child, once it is to be twistd."""
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
