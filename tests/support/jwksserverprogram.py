"""A JWKS server as a program, of the standard library only.

Arguments: address, port, certificate, private key, the file to serve, Cache-Control. It prints its
port, and then the path of each request. The file is read anew for each request; without it the
answer is 503.
"""

import http.server
import socket
import ssl
import sys

address, port, cert, key, path, control = sys.argv[1:]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            with open(path, "rb") as file:
                status, body = 200, file.read()
        except OSError:
            status, body = 503, b""
        self.send_response(status)
        self.send_header("Content-Type", "application/jwk-set+json")
        self.send_header("Content-Length", str(len(body)))
        if control:
            self.send_header("Cache-Control", control)
        self.end_headers()
        self.wfile.write(body)
        print(self.path, flush=True)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def handle_error(self, request, client_address):
        pass


server = Server((address, int(port)), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
