"""The demo's stage: two hosts, keys and a certificate in a folder, and whatever runs on them."""

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
PATIENCE: Final = 10.0


class Stage:
    """Everything that the demo's steps are made of; `close` leaves nothing running."""

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
        """Start what the envelope guards; its first line."""
        return self._first_line(self._start(self.lab.host, _program("serve", MEASUREMENT_PORT)))

    def measure(self, target: str) -> tuple[bool, str]:
        """Let the client measure: whether it could, and its own words."""
        done = self.lab.client().run(_program("measure", target, MEASUREMENT_PORT))
        words = (done.stdout or done.stderr).strip().splitlines()
        return done.returncode == 0, words[-1] if words else "no word"

    def service_options(self, held: str) -> list[str]:
        """The service's command line, for sessions of `held`; paths relative to the folder."""
        return [
            f"--listen=:{PORT}", "--device=eth0", "--cert=cert.pem", "--key=key.pem",
            f"--verify-key=jwk_sig_EdDSA_{KEYS[0]}.pub", f"--machine={MACHINE}",
            f"--subject={SUBJECT}", f"--timeout={held}", "--max-clients=2", "--admin=none",
        ]

    def start_service(self, options: list[str]) -> None:
        """Start it through twistd, and wait until it says that it is ready."""
        # Settings of the user's own must not reach it, nor a login that it would protect.
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
        """SIGTERM; its exit status."""
        assert self._service is not None
        self._service.terminate()
        try:
            self._log.append(self._service.communicate(timeout=PATIENCE)[0])
        except subprocess.TimeoutExpired:
            raise StepFailed(f"the service did not stop within {PATIENCE:g} s") from None
        return self._service.returncode

    def sign(self, kid: str, expires: str) -> str:
        """A token, signed with the key `kid`, that expires so long from now."""
        return self._envelope(
            "sign", f"--private={self.folder / f'jwk_sig_EdDSA_{kid}'}", f"--machine={MACHINE}",
            f"--subject={SUBJECT}", f"--expires={expires}",
        )

    def knock(self, target: str, token: str) -> tuple[subprocess.Popen[str], str]:
        """Let the client ask for an envelope: the client, and the answer in its words."""
        command = _program("hold", target, PORT, self.folder / "cert.pem", ACCESS_PATH)
        client = self._start(self.lab.client(), command, stdin=subprocess.PIPE)
        assert client.stdin is not None
        client.stdin.write(token)
        client.stdin.close()
        client.stdin = None  # for communicate()
        return client, self._first_line(client)

    def hear(self, client: subprocess.Popen[str]) -> str:
        """What a client that holds an envelope says next, whenever that is."""
        return self._first_line(client)

    def rules(self, tool: str, *arguments: str) -> str:
        """What iptables or ip6tables on the host prints, or does."""
        done = self.lab.host.run([tool, *arguments])
        if done.returncode:
            raise StepFailed(f"{tool} {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def saved_rules(self) -> str:
        """Both families' rules, without what changes by itself: times and counters."""
        saved = self.rules("iptables-save") + self.rules("ip6tables-save")
        return re.sub(r"^#.*\n| \[\d+:\d+\]", "", saved, flags=re.MULTILINE)

    def close(self) -> None:
        """Kill whatever still runs."""
        for child in self._children:
            child.kill()
        for child in self._children:
            assert child.stdout is not None
            if not child.stdout.closed:
                rest, _ = child.communicate()
                self._log += [rest] if child is self._service else []

    def service_log(self) -> str:
        """What the service has said; all of it only after `close`."""
        return "".join(self._log)

    def _start(self, host: Host, command: list[str | Path], **kwargs: Any) -> subprocess.Popen[str]:
        child = host.popen(
            command, stdout=subprocess.PIPE, text=True,
            start_new_session=True,  # Ctrl-C is for the demo
            **kwargs,
        )
        self._children.append(child)
        return child

    def _first_line(self, child: subprocess.Popen[str]) -> str:
        assert child.stdout is not None
        return child.stdout.readline().strip() or "ends without a word"

    def _envelope(self, *arguments: str) -> str:
        command: list[str | Path] = [sys.executable, _script("envelope"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise StepFailed(f"envelope {arguments[0]}: {done.stderr.strip()}")
        return done.stdout.strip()


def _script(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def _program(*arguments: str | Path) -> list[str | Path]:
    # By its path, so that the client starts without importing anything of the service.
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
