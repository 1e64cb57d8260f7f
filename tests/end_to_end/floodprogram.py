"""A flood of connections as a program, which runs until its standard input ends.

    floodprogram.py KIND NUMBER HOST PORT SOURCE...

Holds NUMBER connections at a time, from each SOURCE address in turn. For each one that the service
ends it opens a new one, a second later (`token`: at once). Prints `up` once NUMBER were opened, and
at the end the number of connections by outcome, as JSON. Standard library only. The kinds:

    silent  connect, and send nothing
    hello   send a whole TLS ClientHello, and never finish the handshake
    drip    finish the handshake, and send a request at one byte a second
    token   finish it, send a request with a bad token, read the answer, and start again
"""

import asyncio
import json
import ssl
import sys
from collections import Counter
from contextlib import suppress
from itertools import cycle

REQUEST = (
    b"GET /v0/envelope/access?access_token=eyJhbGciOiJFZERTQSIsImtpZCI6InRlc3QifQ.e30." + b"A" * 86
    + b" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: aGVsbG8K\r\n\r\n"
)
CONTEXT = ssl.create_default_context()
CONTEXT.check_hostname, CONTEXT.verify_mode = False, ssl.CERT_NONE


def hello():
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        CONTEXT.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


HELLO = hello()


class Flood:
    def __init__(self, kind, number, host, port, sources):
        self.kind, self.number, self.place = kind, number, (host, port)
        self.sources = cycle(sources)
        self.counted = Counter()

    async def run(self):
        loop = asyncio.get_running_loop()
        holders = [asyncio.create_task(self.hold()) for _ in range(self.number)]
        await loop.run_in_executor(None, sys.stdin.read)
        for holder in holders:
            holder.cancel()
        await asyncio.gather(*holders, return_exceptions=True)
        print(json.dumps(self.counted), flush=True)

    async def hold(self):
        while True:
            writer = None
            try:
                secure = {"ssl": CONTEXT} if self.kind in ("drip", "token") else {}
                reader, writer = await asyncio.open_connection(
                    *self.place, local_addr=(next(self.sources), 0), **secure
                )
                self.opened()
                await getattr(self, self.kind)(reader, writer)
                self.counted["ended"] += 1
            except OSError:
                self.counted["failed" if writer is None else "cut off"] += 1
                self.opened()
            finally:
                if writer is not None:
                    writer.transport.abort()
            if self.kind != "token":
                await asyncio.sleep(1)

    def opened(self):
        self.counted["opened"] += 1
        if self.counted["opened"] == self.number:
            print("up", flush=True)

    async def silent(self, reader, writer):
        await reader.read()

    async def hello(self, reader, writer):
        writer.write(HELLO)
        await reader.read()

    async def drip(self, reader, writer):
        for number in range(len(REQUEST)):
            writer.write(REQUEST[number : number + 1])
            with suppress(TimeoutError):
                # Python 3.11's wait_for loses a cancellation that arrives as it ends.
                async with asyncio.timeout(1):
                    await reader.read()
                break

    async def token(self, reader, writer):
        writer.write(REQUEST)
        answer = await reader.read()
        self.counted[answer[9:12].decode() or "no answer"] += 1


if __name__ == "__main__":
    kind, number, host, port, *sources = sys.argv[1:]
    asyncio.run(Flood(kind, int(number), host, int(port), sources).run())
