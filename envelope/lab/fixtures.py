"""What the demo works with: keys and a certificate in a folder, and programs on its two hosts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from envelope.lab import Host, NetLab
from envelope.lab.narration import StepFailed
from envelope.protocol import ACCESS_PATH

PORT: Final = "8880"
MEASUREMENT_PORT: Final = "5201"
MACHINE: Final = "host.example"
SUBJECT: Final = "measurement"
KEYS: Final = ("demo", "stranger")
# Seconds that the service may take to stop.
STOP_TIMEOUT: Final = 10.0


class Fixtures:
    """The actions that the demo's steps consist of.

    Methods raise `StepFailed` when a program fails that should not. `close` ends every program.
    """

    def __init__(self, lab: NetLab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.targets = (lab.host.address4, lab.host.address6)
        self._children: list[subprocess.Popen[str]] = []
        self._service: subprocess.Popen[str] | None = None
        self._log: list[str] = []
        _write_certificate(folder, self.targets)
        for kid in KEYS:
            self._envelope("keygen", f"--kid={kid}", f"--out={folder}")

    def start_measurement_server(self) -> str:
        """Start the server that the envelope guards; return its first line."""
        return self.next_line(self._start(self.lab.host, _program("serve", MEASUREMENT_PORT)))

    def measure(self, target: str) -> tuple[bool, str]:
        """Let the client measure: whether it succeeded, and the last line that it printed."""
        done = self.lab.client().run(_program("measure", target, MEASUREMENT_PORT))
        lines = (done.stdout or done.stderr).strip().splitlines()
        return done.returncode == 0, lines[-1] if lines else "prints nothing"

    def upload(self, target: str) -> subprocess.Popen[str]:
        """Let the client upload without end; see `programs.upload`."""
        return self._start(self.lab.client(), _program("upload", target, MEASUREMENT_PORT))

    def counted(self, tool: str, source: str) -> tuple[int, int]:
        """The packets and bytes that the rule of `source`'s grant has counted; 0 without a rule."""
        listed = self.run_tool(tool, "-vnxL", "ENVELOPE-GRANTS")
        for line in listed.splitlines():
            if f" {source} " in line:
                packets, size, *_ = line.split()
                return int(packets), int(size)
        return 0, 0

    def service_options(self, held: str) -> list[str]:
        """The service's options for sessions of `held`; paths are relative to the folder."""
        return [
            f"--listen=:{PORT}", "--device=eth0", "--cert=cert.pem", "--key=key.pem",
            f"--verify-key=jwk_sig_EdDSA_{KEYS[0]}.pub", f"--machine={MACHINE}",
            f"--subject={SUBJECT}", f"--timeout={held}", "--max-clients=2",
            "--admin=none", "--status=none",
        ]

    def start_service(self, options: list[str]) -> None:
        """Start the service through twistd, and wait for "ready" in its log."""
        # The service must not read the user's own settings, nor refuse to cut off their SSH login.
        env = {
            name: value for name, value in os.environ.items()
            if name != "SSH_CONNECTION" and not name.startswith("ENVELOPE_")
        }
        self._service = self._start(
            self.lab.host,
            [sys.executable, _script("twistd"), "-n", "--pidfile=", "envelope", *options],
            stderr=subprocess.STDOUT, cwd=self.folder, env=env,
        )
        assert self._service.stdout is not None
        for line in self._service.stdout:
            self._log.append(line)
            if line.rstrip().endswith("ready"):
                return
        raise StepFailed("the service did not start")

    def stop_service(self) -> int:
        """Send SIGTERM to the service and wait for its end; return its exit status."""
        assert self._service is not None
        self._service.terminate()
        try:
            self._log.append(self._service.communicate(timeout=STOP_TIMEOUT)[0])
        except subprocess.TimeoutExpired:
            raise StepFailed(f"the service did not stop within {STOP_TIMEOUT:g} s") from None
        return self._service.returncode

    def sign(self, kid: str, expires: str) -> str:
        """A token that is signed with the key `kid` and expires after a time such as 5s."""
        return self._envelope(
            "sign", f"--private={self.folder / f'jwk_sig_EdDSA_{kid}'}", f"--machine={MACHINE}",
            f"--subject={SUBJECT}", f"--expires={expires}",
        )

    def request_envelope(self, target: str, token: str) -> tuple[subprocess.Popen[str], str]:
        """Let the client request an envelope; return the client and its first line."""
        command = _program("hold", target, PORT, self.folder / "cert.pem", ACCESS_PATH)
        client = self._start(self.lab.client(), command, stdin=subprocess.PIPE)
        assert client.stdin is not None
        client.stdin.write(token)
        client.stdin.close()
        client.stdin = None  # for communicate()
        return client, self.next_line(client)

    def next_line(self, child: subprocess.Popen[str]) -> str:
        """Wait for the next line that a program prints."""
        assert child.stdout is not None
        return child.stdout.readline().strip() or "ends without a line"

    def run_tool(self, tool: str, *arguments: str) -> str:
        """Run a tool such as iptables on the host; return its output."""
        done = self.lab.host.run([tool, *arguments])
        if done.returncode:
            raise StepFailed(f"{tool} {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def saved_rules(self) -> str:
        """The rules of both address families, without counters and comments, which have times."""
        saved = self.run_tool("iptables-save") + self.run_tool("ip6tables-save")
        return re.sub(r"^#.*\n| \[\d+:\d+\]", "", saved, flags=re.MULTILINE)

    def close(self) -> None:
        """Kill every program that still runs."""
        for child in self._children:
            child.kill()
        for child in self._children:
            assert child.stdout is not None
            if not child.stdout.closed:
                rest, _ = child.communicate()
                self._log += [rest] if child is self._service else []

    def service_log(self) -> str:
        """The service's log so far; complete after `close`."""
        return "".join(self._log)

    def _start(self, host: Host, command: list[str | Path], **kwargs: Any) -> subprocess.Popen[str]:
        child = host.popen(
            command, stdout=subprocess.PIPE, text=True,
            start_new_session=True,  # Ctrl-C then reaches the demo only
            **kwargs,
        )
        self._children.append(child)
        return child

    def _envelope(self, *arguments: str) -> str:
        command: list[str | Path] = [sys.executable, _script("envelope"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise StepFailed(f"envelope {arguments[0]}: {done.stderr.strip()}")
        return done.stdout.strip()


def _script(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def _program(*arguments: str | Path) -> list[str | Path]:
    # Run by path, because `-m` would import the package envelope.
    return [sys.executable, Path(__file__).with_name("programs.py"), *arguments]


def _write_certificate(folder: Path, addresses: tuple[str, ...]) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, MACHINE)])
    names = [x509.IPAddress(ip_address(address)) for address in addresses]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        private.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
