"""Commands on the pages that need a service and a client, each run on a host of its own."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from envelope.lab import Host, NetLab
from tests.end_to_end.credentialfiles import sign
from tests.end_to_end.harness import BARE_PYTHON, PATIENCE, Lines, Rig, Service
from tests.support.certificates import Authority
from tests.support.environment import leave_out, need
from tests.support.pages import ENVIRON, Block, Step, all_of, block, follow
from tests.support.unpacked import UNPACKED, unpacked

CHECK = block("docs/check.md", "# envelope check")
CONTROL = block("docs/control.md", "# envelope sessions")
EXEC = block("docs/clients.md", "$ envelope exec --url")
SSH = block("docs/clients.md", "$ ssh")
START = block("README.md", "# twistd")
GRANT = block("README.md", "-N ENVELOPE-GRANTS")
PROXIED = block("docs/proxy.md", "# twistd")
PROXIED_EXEC = block("docs/proxy.md", "$ envelope exec")
PROXIED_LOG = block("docs/proxy.md", "... session")
HAPROXY = block("docs/proxy.md", "frontend")
NGINX = block("docs/proxy.md", "stream {")
# That block is of options, which tests/test_howtos.py has.
RULES = [text for text in all_of("docs/rules.md", "") if not text.startswith("--subject")]

MACHINE = "mlab1.lga03"
LOCATE = "locate.measurementlab.net"
# Answers every request with the file `answer`.
LOCATE_SERVER = """
import http.server, ssl
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print(self.path, flush=True)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(open("answer", "rb").read())
server = http.server.HTTPServer(("127.0.0.1", 443), Answer)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("locate.pem", "locate.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
print("up", flush=True)
server.serve_forever()
"""
# Greets one client as a server of SSH does, prints the client's greeting, and sends what is no
# packet, so that ssh ends: at the end of the connection alone, nc may wait for ssh, and ssh for nc.
SSH_SERVER = r"""
import socket
server = socket.create_server(("203.0.113.1", 22))
print("up", flush=True)
client, _ = server.accept()
client.sendall(b"SSH-2.0-test\r\n")
# The bytes that follow the greeting are no text.
print(client.makefile("rb").readline().decode().strip(), flush=True)
client.sendall(b"x" * 64)
while client.recv(4096):
    pass
"""


@pytest.fixture
def rig(lab: NetLab, tmp_path: Path) -> Iterator[Rig]:
    """A host with the files that the pages name, and a client."""
    rig = Rig(lab, tmp_path)
    for old, new in (("cert.pem", "chain.pem"), ("key.pub", "locate.pub"),
                     ("key.pub", "jwk_sig_EdDSA_tour.pub")):
        shutil.copy(tmp_path / old, tmp_path / new)
    yield rig
    rig.close()


def serve(rig: Rig, host: Host, program: str) -> Lines:
    """Start a program that prints "up" once it listens, and return its output."""
    lines = rig.keep(Lines(host.popen(
        [*BARE_PYTHON, "-c", program], cwd=rig.folder, text=True, bufsize=1,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)))
    assert lines.until("^up$")
    return lines


def program(name: str) -> Path:
    """One of this virtual environment; hosts have a search path of their own."""
    return Path(sys.executable).with_name(name)


def start(rig: Rig, page: Block = START) -> Service:
    """Start the service as the README or another page does, and wait until it is ready."""
    (step,) = page.steps()
    words = shlex.split(step.command.replace("\\\n", " "))
    service = rig.keep(Service(rig.lab.host.popen(
        [program(words[0]), words[1], "--pidfile=", *words[2:]], cwd=rig.folder, env=dict(ENVIRON),
        text=True, bufsize=1, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)))
    service.until(r"\bready$")
    return service


def url(rig: Rig, at: str = "") -> str:
    """What lets the client in, for two minutes; `at` is a host and a port, by default its own."""
    token = sign(rig.key, 120, aud=[MACHINE])
    at = at or f"{rig.lab.host.address4}:8880"
    return f"wss://{at}/v0/envelope/access?access_token={token}"


def follow_on(host: Host, folder: Path, *todo: Step, **environ: str) -> list[str]:
    """Follow steps in a shell on a host."""
    return follow(todo, folder, shell=host.argv(["bash"], folder), environ={
        **ENVIRON, "SSL_CERT_FILE": str(folder / "chain.pem"), **environ})


@contextmanager
def held(rig: Rig, at: str = "") -> Iterator[None]:
    """The client is in."""
    command = ["sh", "-c", "echo in; exec sleep 60"]
    holding = rig.keep(Lines(rig.lab.client().popen(
        [program("envelope"), "exec", "--url", url(rig, at), "--", *command],
        env={**ENVIRON, "SSL_CERT_FILE": str(rig.folder / "chain.pem")}, text=True, bufsize=1,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)))
    assert holding.next() == "in", holding.seen
    yield
    holding.process.terminate()
    holding.process.wait(PATIENCE)


def shape(line: str) -> list[str]:
    """The columns of a line of the list of sessions, without the figures that are its own."""
    line = re.sub(r"\b[0-9a-f]{12}\b", "ID", line)
    line = re.sub(r" [\d.]+ [kMG]?B( |$)", " SIZE ", line)
    return [re.sub(r"^\d+$|\d+(?=[ms])", "1", word) for word in line.split()]


def test_the_service_starts_and_lets_a_client_in_by_the_rules_shown(rig: Rig) -> None:
    start(rig)
    with held(rig):
        done = rig.lab.host.run(["iptables", "-S", "ENVELOPE-GRANTS"], check=True)
    assert Step("", tuple(GRANT.text.splitlines())).fits(done.stdout), done.stdout


def test_sessions_are_listed_and_ended(rig: Rig) -> None:
    """The id that is revoked is the one that was listed."""
    start(rig)
    listed, revoked, unknown = CONTROL.steps()
    shown_id = listed.shown[1].split()[0]
    with held(rig):
        (printed,) = follow_on(rig.lab.host, rig.folder, Step(listed.command, ("...",)))
        lines = printed.splitlines()
        assert [*map(shape, lines)] == [*map(shape, listed.shown)]
        assert shown_id in revoked.command
        ours = revoked.command.replace(shown_id, lines[1].split()[0])
        follow_on(rig.lab.host, rig.folder, Step(ours, revoked.shown), unknown)


def test_what_a_check_finds(rig: Rig) -> None:
    """A certificate with some days left, and another's rule that drops a port with a server."""
    chain, key = Authority(rig.folder).issue(MACHINE, ends=3.5)
    chain.rename(rig.folder / "chain.pem")
    key.rename(rig.folder / "key.pem")
    rig.serve(5201)
    rig.lab.host.run(["iptables", "-A", "INPUT", "-p", "tcp", "--dport", "5201", "-j", "DROP"],
                     check=True)
    follow_on(rig.lab.host, rig.folder, *CHECK.steps())


def test_commands_run_inside_an_envelope(rig: Rig) -> None:
    """By a URL, and by Locate, whose name leads to this test here."""
    for tool in ("iperf3", "openssl"):
        if shutil.which(tool) is None:
            need(f"{tool} is not installed")
    host, client, folder = rig.lab.host, rig.lab.client(), rig.folder
    by_url, by_locate = EXEC.steps()
    start(rig)
    server = rig.keep(Lines(host.popen(
        ["iperf3", "--server", "--one-off", "--forceflush"], stdout=subprocess.PIPE, text=True)))
    server.until("listening")
    (measured,) = follow_on(client, folder, Step(by_url.command, ("...",)), URL=url(rig))
    assert re.search(r"\breceiver\b", measured), measured

    client.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=locate", "-addext",
                f"subjectAltName=DNS:{LOCATE}", "-keyout", "locate.key", "-out", "locate.pem"],
               cwd=folder, check=True)
    (folder / "trusted.pem").write_text(
        (folder / "locate.pem").read_text() + (folder / "chain.pem").read_text())
    (folder / "hosts").write_text(f"127.0.0.1 localhost {LOCATE}\n")
    (folder / "measure").write_text('#!/bin/sh\necho "measures $SERVICE_ADDRESS"\n')
    (folder / "measure").chmod(0o755)
    (folder / "answer").write_text(json.dumps({"results": [
        {"machine": MACHINE, "urls": {"wss:///v0/envelope/access": url(rig)}}]}))
    if client.run(["mount", "--bind", folder / "hosts", "/etc/hosts"]).returncode:
        leave_out("no host here has a file /etc/hosts of its own")
    client.ip("link set lo up")
    asked = serve(rig, client, LOCATE_SERVER)
    follow_on(client, folder, Step(by_locate.command, (f"measures {host.address4}",)),
              SSL_CERT_FILE=str(folder / "trusted.pem"))
    assert asked.next() == "/v2/nearest/wehe/replay"


def start_haproxy(rig: Rig) -> Lines:
    """Start it with the page's text, before the service."""
    # It asks for the service's health more often, so that the test need not wait.
    (rig.folder / "haproxy.cfg").write_text(
        f"defaults\n    default-server inter 100ms\n{HAPROXY.text}")
    haproxy = (UNPACKED, "haproxy", "-f", rig.folder / "haproxy.cfg")
    done = rig.lab.host.run([*haproxy, "-c"])
    assert "Configuration file is valid" in done.stdout, done.stderr
    return rig.keep(Lines(rig.lab.host.popen(
        [*haproxy, "-db"], text=True, bufsize=1, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)))


def start_nginx(rig: Rig) -> Lines:
    """Start it with the page's text; it is one process, which changes no user."""
    module = next(iter((UNPACKED.parents[1] / ".venv/unpacked").rglob("ngx_stream_module.so")),
                  "modules/ngx_stream_module.so")
    (rig.folder / "nginx.conf").write_text("\n".join([
        f"load_module {module};", "daemon off;", "master_process off;",
        f"pid {rig.folder / 'nginx.pid'};", "error_log stderr notice;",
        "events { worker_connections 64; }", NGINX.text]))
    nginx = (UNPACKED, "nginx", "-e", "stderr", "-c", rig.folder / "nginx.conf")
    done = rig.lab.host.run([*nginx, "-t"])
    assert "test is successful" in done.stderr, done.stderr
    running = rig.keep(Lines(rig.lab.host.popen(
        nginx, text=True, bufsize=1, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)))
    running.until("OS: Linux")
    return running


@pytest.mark.parametrize("proxy", ["haproxy", "nginx"])
def test_a_proxy_passes_clients_on_by_name(rig: Rig, proxy: str) -> None:
    """The grant is for the client's address, and ends with the client."""
    unpacked(proxy, "-v")
    name = "mlab1.example.org"
    chain, key = Authority(rig.folder).issue(name)
    chain.rename(rig.folder / "chain.pem")
    key.rename(rig.folder / "key.pem")
    host, client = rig.lab.host, rig.lab.client()
    (rig.folder / "hosts").write_text(f"{host.address4} {name}\n")
    if client.run(["mount", "--bind", rig.folder / "hosts", "/etc/hosts"]).returncode:
        leave_out("no host here has a file /etc/hosts of its own")
    rig.serve(9000)
    if proxy == "nginx":
        service = start(rig, PROXIED)
        start_nginx(rig)
    else:
        before = start_haproxy(rig)
        before.until("Server envelope/mlab1 is DOWN")
        service = start(rig, PROXIED)
        before.until("Server envelope/mlab1 is UP")
    follow_on(client, rig.folder, *PROXIED_EXEC.steps(), URL=url(rig, name))
    line = service.until("session .* opened")
    assert Step("", (PROXIED_LOG.text.strip(),)).fits(line.string), line.string
    service.until("session .* ended")
    with held(rig, name):
        assert client.address4 in host.run(["iptables", "-S", "ENVELOPE-GRANTS"]).stdout
        assert rig.reaches(9000)
        assert not rig.reaches(9000, host.address6)
    service.until("session .* ended .*: client")
    assert not rig.reaches(9000)


def test_ssh_goes_through_an_envelope(rig: Rig) -> None:
    """As far as two greetings."""
    for tool in ("ssh", "nc"):
        if shutil.which(tool) is None:
            need(f"{tool} is not installed")
    host = rig.lab.host
    start(rig)
    server = serve(rig, host, SSH_SERVER)
    (step,) = SSH.steps()
    command = step.command.replace("URL", url(rig)).replace("HOST", host.address4)
    assert command.count(host.address4) == 2
    follow_on(rig.lab.client(), rig.folder, Step(command, ("...",)))
    assert str(server.next()).startswith("SSH-2.0-")


@pytest.mark.parametrize("shown", RULES, ids=[f"block {n}" for n in range(len(RULES))])
def test_the_kernel_reads_the_rules_shown(lab: NetLab, shown: str) -> None:
    """As they are on the page, without their remarks; a chain may be only named."""
    text = re.sub(r" +#.*", "", shown).replace(" DEVICE ", " eth0 ")
    if text.startswith("table "):
        done = lab.host.run(["nft", "--check", "--file", "-"], input=text)
        assert (done.stderr, done.returncode) == ("", 0)
        return
    lines, chain = [], ""
    for line in text.splitlines():
        if named := re.match(r"([A-Z-]+): +", line):
            chain = named[1]
        of_chain = chain and not line.startswith("-")
        rule = line.removeprefix(f"{chain}:").strip()
        lines.append(f"-A {chain} {rule}" if of_chain else rule)
    chains = dict.fromkeys(re.findall(r"\bENVELOPE[\w-]*", "\n".join(lines)))
    tables = [f":{name} - [0:0]" for name in chains]
    families = [("iptables", "fe80::")]
    if not re.search(r" -s \d+\.", text):
        families.append(("ip6tables", " -p icmp "))
    for tool, of_the_other in families:
        ours = [line for line in lines if of_the_other not in line]
        given = "\n".join(["*filter", *tables, *ours, "COMMIT", ""])
        done = lab.host.run([f"{tool}-restore", "--test"], input=given)
        assert (done.stderr, done.returncode) == ("", 0), given
