"""`envelope jwks`: print the public JWK Set of key files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from twisted.python import usage

from envelope.commands.values import FILE
from envelope.credentials.keys import KeyFileError, KeyRing, members_of, public_half, public_key


class Options(usage.Options):
    """The command line."""

    synopsis = "FILE..."
    longdesc = (
        "Prints one JWK Set with the public keys of all files. A file is a JWK or a JWK Set, "
        "public or private. Refuses keys that the service would refuse, so the output can always "
        "be used for --verify-key."
    )

    arguments: Final = FILE

    def parseArgs(self, *files: str) -> None:
        """Take the files."""
        if not files:
            raise usage.UsageError("at least one key file is needed")
        self.files = files


def run(options: Options) -> int:
    """Print the set."""
    keys: list[dict[str, Any]] = []
    for path in map(Path, options.files):
        try:
            for member in members_of(path.read_bytes(), str(path)):
                public = public_half(member)
                # The same key may be given as a private and as a public file.
                if public not in keys:
                    KeyRing(public_key(key) for key in [*keys, public])
                    keys.append(public)
        except KeyFileError as error:
            raise usage.UsageError(str(error)) from None
        except ValueError as error:
            raise usage.UsageError(f"{path}: {error}") from None
    print(json.dumps({"keys": keys}, indent=2))
    return 0
