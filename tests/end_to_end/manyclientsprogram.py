"""Many clients at once, as a program: each connects, stays a while, leaves, and connects again.

Its argument is JSON: `port`, `tls` (true or false), `clients` (number), `stay` (seconds, shortest
and longest), `path`, `pairs` (addresses of client and server, given to the clients in turn). It
reads orders, one a line:

    go     connect, again and again
    pause  all clients leave now
    end    no client connects again; open visits go on until their time or the service's close

When an order is carried out it prints it in JSON, with its counts of what happened; it prints
`crowded` once every client has been let in since `go`. Standard library only, so that it shares no
code with the service.
"""

import asyncio
import base64
import json
import os
import random
import ssl
import struct
import sys
from collections import Counter

orders = json.loads(sys.argv[1])
context = None
if orders["tls"]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
happened = Counter()
visiting = set()
strangers = set()


def say(word):
    print(json.dumps({"said": word, "happened": happened}), flush=True)


def frame(opcode, payload):
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


async def close_code(reader):
    first, length = await reader.readexactly(2)
    payload = await reader.readexactly(length & 0x7F)
    assert first == 0x88, "a frame that is not a close frame"
    return struct.unpack("!H", payload[:2])[0]


async def ask(reader, writer):
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET {orders['path']} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        .encode())
    return int((await reader.readuntil(b"\r\n\r\n")).split()[1])


async def visit(number, leave):
    """One visit, from connecting to the end of the connection."""
    source, server = orders["pairs"][number % len(orders["pairs"])]
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(
            server, orders["port"], ssl=context, local_addr=(source, 0)), 5)
    except (TimeoutError, OSError):
        happened["not connected"] += 1
        await asyncio.sleep(0.02)
        return
    came_to = "not answered"
    try:
        status = await ask(reader, writer)
        happened[f"status {status}"] += 1
        if status == 101:
            came_to = "cut off"
            await stay(number, reader, writer, leave)
    except (OSError, asyncio.IncompleteReadError):
        happened[came_to] += 1
    finally:
        writer.close()


async def stay(number, reader, writer, leave):
    strangers.discard(number)
    if not strangers:
        say("crowded")
        strangers.add(None)
    closing = asyncio.ensure_future(close_code(reader))
    leaving = asyncio.ensure_future(leave.wait())
    await asyncio.wait([closing, leaving], timeout=random.uniform(*orders["stay"]),
                       return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if not closing.done():
        writer.write(frame(8, struct.pack("!H", 1000)))
    code = await closing
    happened[f"closed {code}"] += 1
    if code != 1000:
        writer.write(frame(8, struct.pack("!H", code)))


async def client(number, come, leave):
    while True:
        await come.wait()
        visiting.add(number)
        await visit(number, leave)
        visiting.remove(number)


async def main():
    come, leave = asyncio.Event(), asyncio.Event()
    clients = [asyncio.ensure_future(client(number, come, leave))
               for number in range(orders["clients"])]
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    word = ""
    while word != "end":
        word = (await lines.readline()).decode().strip()
        if word == "go":
            strangers.clear()
            strangers.update(range(orders["clients"]))
            leave.clear()
            come.set()
        else:
            come.clear()
            if word == "pause":
                leave.set()
            while visiting:
                await asyncio.sleep(0.01)
        say(word)
    for each in clients:
        each.cancel()


asyncio.run(main())
