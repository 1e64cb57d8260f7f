"""Base64url and JSON, read strictly as their specifications define them. Pure.

jwcrypto 1.6.1 also accepts padding, other characters, `+/`, duplicate members, NaN and UTF-16.
Then two readers of one signed text could read different values in it.
"""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any, Final

_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
# More than any token or key needs; Python's parser goes on until its stack overflows.
MOST_NESTING: Final = 16


def decode_base64url(text: str) -> bytes:
    """Decode (RFC 7515 section 2) without padding, other characters or unused bits that are set.

    Raises `ValueError`.
    """
    if not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        raise ValueError("not base64url")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != text:
        raise ValueError("not canonical base64url")
    return raw


def decode_object(raw: bytes) -> dict[str, Any]:
    """Decode a JSON object (RFC 8259) in UTF-8, without duplicate members or NaN.

    Raises `ValueError`, or `RecursionError`.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        # Python's own message repeats a byte of the text.
        raise ValueError("not UTF-8") from None
    if _nesting(text) > MOST_NESTING:
        raise ValueError("nested too deeply")
    value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_int=_int,
                       parse_float=_float)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _nesting(text: str) -> int:
    deepest = depth = 0
    for bracket in re.findall(r'"(?:[^"\\]|\\.)*+(?:"|\Z|\\)|([\[{])|([\]}])', text):
        depth += 1 if bracket[0] else -1 if bracket[1] else 0
        deepest = max(deepest, depth)
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate members")
    return members


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _int(text: str) -> int | float:
    # The time that Python takes grows with the square of the digits.
    return int(text) if len(text) <= 20 else _float(text)


def _float(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError("a number too large")
    return number
