"""Key rings for tests, read as the service reads its key files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from envelope.credentials.keyfiles import KeyFiles
from envelope.credentials.keys import KeyRing


def load_key_ring(paths: Iterable[Path]) -> KeyRing:
    """The keys of all the files; raise `KeyFileError`."""
    return KeyFiles(paths).ring


def key_ring(text: bytes | str) -> KeyRing:
    """The keys of a JWK or JWK Set; raise `KeyFileError`."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "keys.json")
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_key_ring([path])
