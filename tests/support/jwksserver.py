"""A JWKS server (`jwksserverprogram.py`), its certificate and the keys it publishes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jwcrypto import jwk

from tests.end_to_end.harness import BARE_PYTHON, Lines
from tests.support.certificates import Authority

PROGRAM = Path(__file__).with_name("jwksserverprogram.py")


def make_key(kid: str) -> jwk.JWK:
    return jwk.JWK.generate(kty="OKP", crv="Ed25519", kid=kid, alg="EdDSA", use="sig")


class Publisher:
    """A folder with an authority, a certificate for `host` and the published file."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        folder.mkdir()
        self.host = host
        self.authority = Authority(folder)
        self.cert, self.key = self.authority.issue(host)
        self.path = folder / "jwks.json"
        self.port = 0

    def publish(self, *keys: jwk.JWK | dict[str, Any]) -> None:
        shown = [
            key.export_public(as_dict=True) if isinstance(key, jwk.JWK) else key for key in keys
        ]
        self.path.write_text(json.dumps({"keys": shown}))

    @contextmanager
    def serve(
        self, control: str = "", popen: Callable[..., Any] = subprocess.Popen
    ) -> Iterator[Lines]:
        """A context manager: the server runs; its lines are the port and the requests' paths.

        The first run takes a free port, later ones the same. `popen` may run it on another host.
        """
        process = popen(
            [*BARE_PYTHON, PROGRAM, self.host, str(self.port), self.cert, self.key, self.path,
             control],
            stdout=subprocess.PIPE, text=True, bufsize=1,
        )
        lines = Lines(process)
        try:
            self.port = int(lines.next() or 0)
            yield lines
        finally:
            process.kill()
            process.wait()
            lines.reader.join()
            process.stdout.close()

    @property
    def options(self) -> tuple[str, str]:
        """The service's options for this server, after `serve`; the query stands for a secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            f"--verify-jwks-url=https://{host}:{self.port}/jwks?secret=hush",
            f"--jwks-ca={self.authority.path}",
        )
