"""`envelope sign`: sign an access token."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jwcrypto import jwk, jws
from jwcrypto.common import JWException
from twisted.python import usage

from envelope.admission import ACCESS_PATH
from envelope.durations import parse_duration


class Options(usage.Options):
    """The command line."""

    synopsis = "--private FILE --machine M --subject S [options]"
    longdesc = "Prints an access token, or with --url the whole address to open; never the key."
    optParameters = [  # noqa: RUF012
        ["private", None, None, "the private JWK, as envelope keygen writes it"],
        ["machine", None, None, "the machine's name, the token's audience"],
        ["subject", None, None, "the service's name, or monitoring"],
        ["issuer", None, "locate", "the token's issuer"],
        ["expires", None, "2m", "how long from now the token is valid"],
        ["url", None, None, "HOST:PORT of the service, to print a wss:// address"],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.claims: dict[str, Any] = {}

    def opt_claim(self, text: str) -> None:
        """K=V, one more claim, or another value for one; V may be JSON. May be given often."""
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise usage.UsageError("--claim takes K=V")
        try:
            self.claims[name] = json.loads(value)
        except ValueError:
            self.claims[name] = value

    def postOptions(self) -> None:
        """Refuse what is missing."""
        for name in ("private", "machine", "subject"):
            if not self[name]:
                raise usage.UsageError(f"--{name} is needed")


def run(options: Options) -> int:
    """Print the token."""
    try:
        lasts = parse_duration(options["expires"])
    except ValueError as error:
        raise usage.UsageError(f"--expires: {error}") from None
    key = _private_key(Path(options["private"]))
    now = time.time()
    claims = {
        "iss": options["issuer"], "aud": [options["machine"]], "sub": options["subject"],
        "exp": int(now + lasts), "iat": int(now), "jti": secrets.token_hex(8), **options.claims,
    }
    header = {"alg": key.get("alg"), "kid": key.get("kid"), "typ": "JWT"}
    token = jws.JWS(json.dumps(claims).encode())
    token.add_signature(key, None, json.dumps(header))
    text = token.serialize(compact=True)
    if options["url"]:
        text = f"wss://{options['url']}{ACCESS_PATH}?access_token={quote(text)}"
    print(text)
    return 0


def _private_key(path: Path) -> jwk.JWK:
    text = path.read_text()
    try:
        key = jwk.JWK.from_json(text)
    except (JWException, ValueError, TypeError, KeyError):
        raise usage.UsageError(f"{path} holds no JWK") from None
    if not key.has_private:
        raise usage.UsageError(f"{path} holds no private key")
    if not key.get("kid") or key.get("alg") not in ("EdDSA", "ES256", "RS256"):
        raise usage.UsageError(f"{path}: the key has no kid, or no alg that is supported")
    return key
