"""The keys in the files of `--verify-key`.

A bare JWK has to be usable. In a JWK Set, keys for other purposes and of other kinds are passed
over, as in a fetched one (RFC 7517 section 5): issuers publish such sets. But the file is the
operator's own, so a weak, private or symmetric key in it refuses the whole file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from twisted.logger import Logger

from envelope.credentials.keys import (
    Key,
    KeyFileError,
    KeyRing,
    decode_keys,
    public_key,
    read_key_file,
)
from envelope.credentials.publishedkeys import read_members, summary
from envelope.credentials.weakkeys import UnsafeKey

_log = Logger(namespace="envelope")


class KeyFiles:
    """The keys of all of `paths`, and how they are read; raises `KeyFileError`.

    `ring` holds the keys that were read last.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)
        self._skipped: dict[Path, tuple[str, ...]] = {}
        self.reload()

    def reload(self) -> None:
        """Read all files again; if one raises `KeyFileError`, `ring` stays as it was.

        Keys that are passed over are logged, but not again until they are others.
        """
        ring, passed_over = KeyRing(), {}
        for path in self._paths:
            keys, passed_over[path] = _read(path)
            try:
                ring = KeyRing([*ring.values(), *keys])
            except ValueError as error:
                raise KeyFileError(path, str(error)) from None
        self.ring = ring
        for path, skipped in passed_over.items():
            if skipped != self._skipped.get(path, ()):
                for line in summary(str(path), skipped):
                    _log.warn("{line}", line=line)
        self._skipped = passed_over


def _read(path: Path) -> tuple[tuple[Key, ...], tuple[str, ...]]:
    """The usable keys of a file, and a line for each of the others."""
    members, is_set = decode_keys(read_key_file(path), str(path))
    if is_set:
        found = read_members(members, str(path), refuse=(UnsafeKey,))
        return found.keys, found.skipped
    try:
        return (public_key(members[0]),), ()
    except ValueError as error:
        raise KeyFileError(path, str(error)) from None
