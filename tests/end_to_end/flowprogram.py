"""One end of TCP and UDP flows between two hosts, as a program: `serve`, or `flows ADDRESS`.

`serve` echoes TCP on port 9100 and UDP on 9200, and prints what arrives at UDP 9300 without an
answer. `flows` opens one flow to each port and reads orders, one a line: `tcp` and `udp` send a
packet and print whether an echo came within 2 s; `send TEXT` sends to 9300 and prints whether no
refusal came within 0.5 s. Standard library only.
"""

import select
import socket
import sys
import threading


def bound(kind, port):
    made = socket.socket(socket.AF_INET6, kind)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("::", port))
    return made


def echo(stream):
    while data := stream.recv(99):
        stream.sendall(data)


def accept(listening):
    while True:
        threading.Thread(target=echo, args=(listening.accept()[0],), daemon=True).start()


def serve():
    tcp, udp, sink = (bound(socket.SOCK_STREAM, 9100), bound(socket.SOCK_DGRAM, 9200),
                      bound(socket.SOCK_DGRAM, 9300))
    tcp.listen()
    threading.Thread(target=accept, args=(tcp,), daemon=True).start()
    print("up", flush=True)
    while True:
        for ready in select.select([udp, sink], [], [])[0]:
            data, peer = ready.recvfrom(99)
            if ready is udp:
                udp.sendto(data, peer)
            else:
                print(data.decode(), flush=True)


def comes_back(flow):
    try:
        flow.send(b"x")
        return bool(select.select([flow], [], [], 2)[0]) and flow.recv(9) == b"x"
    except OSError:
        return False


def flows(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    tcp = socket.create_connection((address, 9100), 5)
    udp, way = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
    udp.connect((address, 9200))
    way.connect((address, 9300))
    print("up", flush=True)
    for line in sys.stdin:
        word, _, text = line.strip().partition(" ")
        if word == "send":
            way.send(text.encode())
            refused = select.select([way], [], [], 0.5)[0] and way.getsockopt(
                socket.SOL_SOCKET, socket.SO_ERROR)
            print(not refused, flush=True)
        else:
            print(comes_back({"tcp": tcp, "udp": udp}[word]), flush=True)


if sys.argv[1] == "serve":
    serve()
else:
    flows(sys.argv[2])
