"""The load as a program: each line of input is an order in JSON, answered when it is done.

- `{"do": "visits", "count": 100, "at_once": 16}`: clients connect and leave;
- `{"do": "schedule", "rate": 300, "seconds": 10}`: clients connect at fixed times and leave;
- `{"do": "hold", "count": 1000, "at_once": 16}`: clients connect and stay;
- `{"do": "leave"}`: all clients that stayed leave at once;
- `{"do": "gone", "count": 20}`: milliseconds from close frame to refused packet;
- `{"do": "flood", "seconds": 1}`: packets from the client that connected last.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
from pathlib import Path
from typing import Any

from benchmarks.client.crowd import Crowd
from benchmarks.client.flood import flood
from benchmarks.client.gone import seconds_until_gone


class _Program:
    def __init__(self, host: str, port: int, echo: int, sink: int, tokens: list[str]) -> None:
        self.crowd = Crowd((host, port), tokens)
        self.echo, self.sink = (host, echo), (host, sink)

    def visits(self, count: int, at_once: int, pause: float = 0.0) -> dict[str, Any]:
        return self.crowd.visits(count, at_once, pause).as_json()

    def schedule(self, rate: float, seconds: float) -> dict[str, Any]:
        return self.crowd.schedule(rate, seconds).as_json()

    def hold(self, count: int, at_once: int) -> dict[str, Any]:
        return {**self.crowd.hold(count, at_once).as_json(), "held": len(self.crowd.held)}

    def leave(self) -> dict[str, Any]:
        return self.crowd.leave().as_json()

    def gone(self, count: int) -> dict[str, Any]:
        return {"gone": [seconds_until_gone(self.crowd, self.echo) * 1000 for _ in range(count)]}

    def flood(self, seconds: float) -> dict[str, Any]:
        last = max(self.crowd.held, key=lambda visitor: visitor.opened, default=None)
        sent, spent = flood(last.source if last else "10.9.0.1", self.sink, seconds)
        return {"sent": sent, "seconds": spent}


def main() -> None:
    """Serve the driver on standard input and output, until the input ends."""
    host, port, echo, sink, tokens = sys.argv[1:]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    program = _Program(
        host, int(port), int(echo), int(sink), Path(tokens).read_text().split()
    )
    # A pause for garbage collection here would count as a pause of the service.
    gc.freeze()
    gc.disable()
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = getattr(program, order.pop("do"))(**order)
        except (OSError, RuntimeError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
