"""`envelope sign`: sign an access token."""

from __future__ import annotations

import json
import re
import secrets
import time
from pathlib import Path
from typing import Any, Final

from jwcrypto import jwk, jws
from twisted.python import usage

from envelope.commands.values import FILE
from envelope.config.values import parse_duration
from envelope.credentials.keys import (
    Key,
    KeyFileError,
    KeyRing,
    members_of,
    public_half,
    public_key,
)
from envelope.credentials.tokens import TokenReason, TokenRefusal, verify_signature
from envelope.protocol import ACCESS_PATH

_HOST_PORT: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


class Options(usage.Options):
    """The command line."""

    synopsis = "--private FILE --machine M --subject S [options]"
    longdesc = (
        "Prints an access token, or with --url the whole URL to open; never the key. The token "
        "has the claims iss, aud, sub, exp, iat and jti. --claim adds one or, for tests, replaces "
        "one: --claim exp=1 makes a token that has expired."
    )
    takes: Final = {"private": FILE}
    optParameters = [  # noqa: RUF012
        ["private", None, None, "the private JWK, as envelope keygen writes it"],
        ["machine", None, None, "the machine's name, the token's audience"],
        ["subject", None, None, "the service's name, or monitoring"],
        ["issuer", None, "locate", "the token's issuer"],
        ["expires", None, "2m", "how long the token is valid: 90, 90s, 1m30s, 2h"],
        ["url", None, None, "HOST:PORT of the service, to print a wss:// URL"],
    ]

    def __init__(self) -> None:
        usage.Options.__init__(self)  # type: ignore[no-untyped-call, unused-ignore]
        self.claims: dict[str, Any] = {}

    def opt_claim(self, text: str) -> None:
        """K=V: add or replace a claim. V is JSON if it can be, else text. Once for each K."""
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise usage.UsageError("--claim takes K=V")
        if name in self.claims:
            raise usage.UsageError(f"--claim {name!r} is given twice")
        self.claims[name] = _json_or_text(value)

    def postOptions(self) -> None:
        """Refuse options that are missing or malformed."""
        for name in ("private", "machine", "subject"):
            if not self[name]:
                raise usage.UsageError(f"--{name} is needed")
        try:
            self.valid_for = parse_duration(self["expires"])
        except ValueError as error:
            raise usage.UsageError(f"--expires: {error}") from None
        match = _HOST_PORT.fullmatch(self["url"] or "")
        if self["url"] is not None and not (match and 1 <= int(match[1]) <= 65535):
            raise usage.UsageError("--url takes HOST:PORT, an IPv6 address in brackets")


def run(options: Options) -> int:
    """Print the token or the URL."""
    path = Path(options["private"])
    now = time.time()
    claims = {
        "iss": options["issuer"], "aud": [options["machine"]], "sub": options["subject"],
        "exp": int(now + options.valid_for), "iat": int(now), "jti": secrets.token_hex(8),
        **options.claims,
    }
    try:
        text = _sign(claims, *_key_pair(path))
    except KeyFileError as error:
        raise usage.UsageError(str(error)) from None
    except ValueError as error:
        raise usage.UsageError(f"{path}: {error}") from None
    if options["url"] is not None:
        text = f"wss://{options['url']}{ACCESS_PATH}?access_token={text}"
    print(text)
    return 0


def _json_or_text(value: str) -> Any:
    try:
        read = json.loads(value)
        # Python reads NaN and 1e999, which the service refuses in a token.
        json.dumps(read, allow_nan=False)
    except (ValueError, RecursionError):
        return value
    return read


def _key_pair(path: Path) -> tuple[Key, dict[str, Any]]:
    """The only key in a file, as its public `Key` and as its private JWK; or `ValueError`."""
    members = members_of(path.read_bytes(), str(path))
    if len(members) != 1:
        raise ValueError("there is more than one key; use a file with one")
    key = public_key(public_half(members[0]))
    if "d" not in members[0]:
        raise ValueError("there is no private key; the public one cannot sign")
    return key, members[0]


def _sign(claims: dict[str, Any], key: Key, private: dict[str, Any]) -> str:
    header = {"alg": key.alg, "kid": key.kid, "typ": "JWT"}
    token = jws.JWS(json.dumps(claims).encode())
    try:
        token.add_signature(jwk.JWK(**private), key.alg, json.dumps(header))
    except Exception:  # jwcrypto and cryptography raise many kinds
        raise ValueError("the private key cannot be used") from None
    text: str = token.serialize(compact=True)
    if verify_signature(text, KeyRing([key])) == TokenRefusal(TokenReason.SIGNATURE):
        raise ValueError("the private key and the public key in the file are not a pair")
    return text
