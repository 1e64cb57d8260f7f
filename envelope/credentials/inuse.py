"""The keys and the certificate in use, as operators are shown them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Source: TypeAlias = Literal["verify-key", "verify-jwks-url"]


@dataclass(frozen=True, slots=True)
class KeyInUse:
    """One public key; `source` is the option that it came by.

    `since` is when this process began to use it, in seconds since the epoch.
    """

    kid: str
    alg: str
    source: Source
    since: float


@dataclass(frozen=True, slots=True)
class CertificateInUse:
    """The certificate; `names` are the DNS names and addresses that it proves.

    The times are seconds since the epoch: when it becomes valid, when it expires, and when this
    process began to use it.
    """

    names: tuple[str, ...]
    not_before: float
    not_after: float
    since: float
