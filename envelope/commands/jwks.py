"""`envelope jwks`: print the public JWK Set of key files."""

from __future__ import annotations

import json
from pathlib import Path

from jwcrypto import jwk
from jwcrypto.common import JWException
from twisted.python import usage


class Options(usage.Options):
    """The command line."""

    synopsis = "FILE..."
    longdesc = "Prints the public halves of the keys in the files, private ones included."

    def parseArgs(self, *files: str) -> None:
        """Take the files."""
        if not files:
            raise usage.UsageError("at least one key file is needed")
        self.files = files


def run(options: Options) -> int:
    """Print the set."""
    keys = []
    for path in map(Path, options.files):
        try:
            key = jwk.JWK.from_json(path.read_text())
            if key.is_symmetric:
                raise usage.UsageError(f"{path} holds a symmetric key, which has no public half")
            public = key.export_public(as_dict=True)
            if public not in keys:
                keys.append(public)
        except (JWException, ValueError, TypeError, KeyError):
            raise usage.UsageError(f"{path} holds no JWK") from None
    print(json.dumps({"keys": keys}, indent=2))
    return 0
