"""Either end of flows that connection tracking may get wrong, as a program.

`serve [once]` accepts on port 9400; with `once` it closes the listener after the first.
`hold ADDRESS [NUMBER]` opens connections to it. Told `send`, each sends ten bytes on every
connection and prints how many there are; told `count`, it prints how many bytes have come in on
them. Told `confuse`, the second makes connection tracking forget its first connection, though the
server accepts none of it. `serve-udp` and `hold-udp ADDRESS` do the same over UDP, from sockets
that are not connected. Standard library only.
"""

import select
import socket
import struct
import sys

PORT = 9400
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
RECEIVED, SENT = 1, 2
ACK, RESET = 0x10, 0x04


def serve(once):
    listener = socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True,
                                    backlog=1000)
    print("up", flush=True)
    listening, connections, received, words = [listener], [], 0, sys.stdin.buffer.raw
    while True:
        for ready in select.select([words, *listening, *connections], [], [])[0]:
            if ready is listener:
                connections.append(listener.accept()[0])
                if once:
                    listener.close()
                    listening = []
            elif ready is words:
                for word in words.read(4096).split():
                    if word == b"send":
                        connections = [each for each in connections if sends(each)]
                    print(received if word == b"count" else len(connections), flush=True)
            elif ready in connections:
                data = receives(ready)
                received += len(data)
                if not data:
                    connections.remove(ready)


def sends(connection):
    try:
        return connection.send(b"x" * 10) == 10
    except OSError:
        return False


def receives(connection):
    try:
        return connection.recv(4096)
    except OSError:
        return b""


def sequence(connection, queue):
    connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
    return connection.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) & 0xFFFFFFFF


def confuse(connection):
    """Send an acknowledgement and a reset, ten bytes ahead of what the server expects."""
    connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    ours, theirs = sequence(connection, SENT) + 10 & 0xFFFFFFFF, sequence(connection, RECEIVED)
    connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)
    here, there = connection.getsockname(), connection.getpeername()
    pair = b"".join(socket.inet_pton(connection.family, end[0]) for end in (here, there))
    with socket.socket(connection.family, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.bind((here[0], 0))
        for flags in (ACK, RESET):
            head = struct.pack("!HHIIHHHH", here[1], there[1], ours, theirs, 0x5000 | flags,
                               512, 0, 0)
            raw.sendto(head[:16] + checksum(pair + head) + head[18:], (there[0], 0))


def checksum(text):
    """Of 20 bytes of TCP, with the addresses in front of them (RFC 9293 section 3.1)."""
    total = sum(struct.unpack(f"!{len(text) // 2}H", text)) + socket.IPPROTO_TCP + 20
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def hold(address, number):
    connections = [socket.create_connection((address, PORT), 5) for _ in range(number)]
    print("up", flush=True)
    received = 0
    for line in sys.stdin:
        word = line.strip()
        if word == "confuse":
            confuse(connections[0])
        for ready in select.select(connections, [], [], 0)[0]:
            data = receives(ready)
            received += len(data)
            if not data:
                connections.remove(ready)
        if word == "send":
            connections = [each for each in connections if sends(each)]
        print(received if word == "count" else len(connections), flush=True)


def udp(near, peers):
    received, words = 0, sys.stdin.buffer.raw
    print("up", flush=True)
    while True:
        for ready in select.select([words, near], [], [])[0]:
            if ready is near:
                data, peer = near.recvfrom(4096)
                received += len(data)
                peers.add(peer)
                continue
            for word in words.read(4096).split():
                if word == b"send":
                    for peer in peers:
                        near.sendto(b"x" * 10, peer)
                print(received if word == b"count" else len(peers), flush=True)


def serve_udp():
    near = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    near.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    near.bind(("::", PORT))
    udp(near, set())


def hold_udp(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    near = socket.socket(family, socket.SOCK_DGRAM)
    near.bind(("", 0))
    udp(near, {(address, PORT, 0, 0)[:4 if ":" in address else 2]})


if sys.argv[1] == "serve":
    serve(sys.argv[2:] == ["once"])
elif sys.argv[1] == "hold":
    hold(sys.argv[2], int((sys.argv[3:] or ["1"])[0]))
elif sys.argv[1] == "serve-udp":
    serve_udp()
else:
    hold_udp(sys.argv[2])
