"""Measures how fast the server sends; the server's address is the first one in SERVICE_ADDRESS."""

import os
import socket
import time

address = os.environ["SERVICE_ADDRESS"].split()[0]
received, began = 0, time.monotonic()
with socket.create_connection((address, 5000), timeout=5) as server:
    while data := server.recv(65536):
        received += len(data)
print(f"{received * 8 / 1e6 / (time.monotonic() - began):.0f} Mbit/s from {address}")
