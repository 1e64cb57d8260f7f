"""`envelope keygen`: make a key pair to sign access tokens with."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Any, Final

from jwcrypto import jwk
from twisted.python import usage

_KINDS: Final[dict[str, dict[str, Any]]] = {
    "EdDSA": {"kty": "OKP", "crv": "Ed25519"},
    "ES256": {"kty": "EC", "crv": "P-256"},
    "RS256": {"kty": "RSA", "size": 3072},
}


class Options(usage.Options):
    """The command line."""

    synopsis = "[--alg ALG] [--kid KID] [--out DIR]"
    longdesc = (
        "Writes jwk_sig_ALG_KID, the private key, readable by its owner only, and "
        "jwk_sig_ALG_KID.pub, the public key for --verify-key. Overwrites nothing."
    )
    optParameters = [  # noqa: RUF012
        ["alg", None, "EdDSA", "EdDSA (Ed25519), ES256 or RS256"],
        ["kid", None, None, "the key's name in tokens [default: a random one]"],
        ["out", None, ".", "the folder to write to"],
    ]


def run(options: Options) -> int:
    """Write the pair and print both paths."""
    algorithm = options["alg"]
    if algorithm not in _KINDS:
        raise usage.UsageError("--alg is one of EdDSA, ES256 and RS256")
    kid = options["kid"] or secrets.token_hex(4)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", kid):
        raise usage.UsageError("--kid may hold letters, digits, '.', '_' and '-' only")
    key = jwk.JWK.generate(kid=kid, alg=algorithm, use="sig", **_KINDS[algorithm])
    private = Path(options["out"]) / f"jwk_sig_{algorithm}_{kid}"
    public = private.with_name(f"{private.name}.pub")
    if public.exists():
        raise usage.UsageError(f"{public} exists already")
    _write(private, key.export_private(), 0o600)
    try:
        _write(public, key.export_public(), 0o644)
    except BaseException:
        private.unlink()
        raise
    print(private)
    print(public)
    return 0


def _write(path: Path, text: str, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise usage.UsageError(f"{path} exists already") from None
    with os.fdopen(handle, "w") as file:
        file.write(text + "\n")
