"""Hands out URLs with tokens for the machines that have room, in the form of Locate's answers."""

import json
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

# Each machine's name, where clients find it, and its --admin. In production, URLs begin with wss://.
MACHINES = [("mlab1", "ws://127.0.0.1:8880", "http://127.0.0.1:9990")]
PATH = "/v0/envelope/access"
SIGN = ("envelope", "sign", "--private=jwk_sig_EdDSA_example", "--subject=speed")


def offer(machine: str, place: str, admin: str) -> dict[str, object] | None:
    """What Locate's answer says of a machine; None if it has no room."""
    try:
        urlopen(f"{admin}/health", timeout=1).close()
    except OSError:
        return None
    token = subprocess.check_output([*SIGN, f"--machine={machine}"], text=True).strip()
    return {"machine": machine, "urls": {f"ws://{PATH}": f"{place}{PATH}?access_token={token}"}}


class Issuer(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        """Answer."""
        results = [found for each in MACHINES if (found := offer(*each))]
        error = {"title": "No machine has room", "status": 503}
        self.send_response(200 if results else 503)
        self.end_headers()
        self.wfile.write(json.dumps({"results": results} if results else {"error": error}).encode())


ThreadingHTTPServer(("127.0.0.1", 8000), Issuer).serve_forever()
