"""`envelope keygen`: make a key pair to sign access tokens with."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Any, Final

from jwcrypto import jwk
from twisted.python import usage

from envelope.commands.values import FILE, words

_KINDS: Final[dict[str, dict[str, Any]]] = {
    "EdDSA": {"kty": "OKP", "crv": "Ed25519"},
    "ES256": {"kty": "EC", "crv": "P-256"},
    "RS256": {"kty": "RSA", "size": 3072},
}
# The contract's mode of a private key, whatever the umask.
_PRIVATE_MODE: Final = 0o600


class Options(usage.Options):
    """The command line."""

    synopsis = "[--alg ALG] [--kid KID] [--out DIR]"
    longdesc = (
        "Writes DIR/jwk_sig_ALG_KID, the private key for envelope sign, readable by its owner "
        "only, and DIR/jwk_sig_ALG_KID.pub, the public key for the service's --verify-key. "
        "Prints both paths. Never overwrites a file. Writes neither when it cannot write both."
    )
    takes: Final = {"alg": words(*_KINDS), "out": FILE}
    optParameters = [  # noqa: RUF012
        ["alg", None, "EdDSA", "EdDSA (Ed25519), ES256 (P-256) or RS256 (RSA, 3072 bits)"],
        ["kid", None, None, "the key's name in tokens: letters, digits, '_', '-' and '.' "
                            "[default: a random one]"],
        ["out", None, ".", "the folder to write to, which must exist"],
    ]


def run(options: Options) -> int:
    """Write the pair and print both paths."""
    alg = options["alg"]
    if alg not in _KINDS:
        raise usage.UsageError("--alg is one of EdDSA, ES256 and RS256")
    kid = secrets.token_hex(4) if options["kid"] is None else options["kid"]
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", kid):
        raise usage.UsageError(
            "--kid is 1 to 64 letters, digits, '_', '-' and '.', not starting with '-' or '.'"
        )
    if kid.endswith(".pub"):
        raise usage.UsageError("--kid ending in .pub would make a private key look public")
    private = Path(options["out"]) / f"jwk_sig_{alg}_{kid}"
    public = private.with_name(f"{private.name}.pub")
    if public.exists():
        raise usage.UsageError(f"{public} exists already")
    key = jwk.JWK.generate(kid=kid, alg=alg, use="sig", **_KINDS[alg])
    _write(private, key.export_private(), _PRIVATE_MODE)
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
    try:
        with os.fdopen(handle, "w") as file:
            if mode == _PRIVATE_MODE:
                # Exactly this: a umask may take away the owner's own rights.
                os.fchmod(handle, mode)
            file.write(text + "\n")
    except BaseException:
        # A partly written key is useless, and the next run would refuse to overwrite it.
        path.unlink()
        raise
