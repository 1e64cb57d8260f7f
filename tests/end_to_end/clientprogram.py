"""A client as a program, which `Rig.client` runs on another host.

Its first argument is a JSON object (made by `Rig.client`), the others are headers. It prints one
JSON object a line: first the answer, or that it gave up after `patience` seconds, then every frame,
and the end of the connection. After a 101 it reads orders from standard input, one a line: close,
data, ping, leave. Standard library only, so that it shares no code with the service.
"""

import base64
import json
import os
import socket
import ssl
import struct
import sys
import threading
import time


def say(**event):
    print(json.dumps(event), flush=True)


def frame(opcode, payload=b""):
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked


def read_exactly(stream, count):
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def listen(stream):
    try:
        while True:
            first, second = read_exactly(stream, 2)
            payload = read_exactly(stream, second & 0x7F)
            if first & 0x0F == 8:
                code = struct.unpack("!H", payload[:2])[0] if payload else None
                say(event="close", code=code, reason=payload[2:].decode())
                stream.sendall(frame(8, payload[:2]))
            else:
                say(event="frame", opcode=first & 0x0F, payload=payload.decode("latin-1"))
    except (EOFError, OSError):
        say(event="end")


def give_up():
    say(event="gave up")
    os._exit(1)


def main():
    settings, headers = json.loads(sys.argv[1]), sys.argv[2:]
    host, path = settings["host"], settings["path"]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    impatience = threading.Timer(settings["patience"], give_up)
    impatience.daemon = True
    impatience.start()
    begun = time.monotonic()
    try:
        stream = socket.create_connection(
            (host, settings["port"]), 5, (settings["source"], 0) if settings["source"] else None
        )
    except OSError as error:
        say(event="refused", error=str(error))
        return
    stream.settimeout(None)
    stream.sendall(bytes.fromhex(settings["before"]))
    if settings["secure"] == "tls":
        stream = context.wrap_socket(stream)
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}"]
    if not headers:
        key = base64.b64encode(os.urandom(16)).decode()
        headers = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                   f"Sec-WebSocket-Key: {key}"]
    stream.sendall("\r\n".join([*lines, *headers, "", ""]).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        more = stream.recv(1)
        if not more:
            say(event="end", head=head.decode("latin-1"))
            return
        head += more
    impatience.cancel()
    status = int(head.split()[1])
    took = time.monotonic() - begun
    say(event="answer", status=status, head=head.decode("latin-1"), seconds=took)
    if status != 101:
        return
    threading.Thread(target=listen, args=(stream,), daemon=True).start()
    for line in sys.stdin:
        word = line.strip()
        if word == "close":
            stream.sendall(frame(8, struct.pack("!H", 1000)))
        elif word == "data":
            stream.sendall(frame(1, b"hello"))
        elif word == "ping":
            stream.sendall(frame(9, b"are you there"))
        elif word == "leave":
            os._exit(0)


main()
