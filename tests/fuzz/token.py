"""The token path: any text, any signed header, any signed payload -> claims or a refusal.

The first letter says what the rest is: `H` a header, `P` a payload, both soundly signed, anything
else the token itself. What is taken, and only that, is what the strict reading takes.
"""

from __future__ import annotations

from envelope.credentials.tokens import Claims, TokenReason, TokenRefusal
from tests.support.callcounter import CallCounter
from tests.support.referencetokens import accepts
from tests.support.tokenmaking import KEYS, NOW, PAYLOAD, RING, judge, signed_as_is

_PUBLIC = {kid: key.get_op_key("verify") for kid, key in KEYS.items()}
_HEADER = b'{"alg":"EdDSA","kid":"EdDSA"}'
_REASONS = frozenset(TokenReason)
_KEYS = dict(RING)
# Calls of Python functions for any token, and for each letter more.
FEW, EACH = 300, 2


def one(data: bytes) -> None:
    """Judge one token."""
    kind, rest = data[:1], data[1:]
    if kind == b"H":
        text = signed_as_is(rest, PAYLOAD)
    elif kind == b"P":
        text = signed_as_is(_HEADER, rest)
    else:
        text = rest.decode("utf-8", "replace")
    with CallCounter() as work:
        verdict = judge(text)
    assert work.calls <= FEW + EACH * len(text), f"{work.calls} calls for {len(text)} letters"
    assert work.builtin["verify"] <= 1, "more than one signature checked"
    if isinstance(verdict, TokenRefusal):
        assert verdict.reason in _REASONS
    else:
        assert isinstance(verdict, Claims)
    strictly = accepts(text, _PUBLIC, "locate", "mlab1", NOW)
    assert isinstance(verdict, Claims) == strictly, f"{verdict} but strictly {strictly}"
    assert judge(text) == verdict, "judged twice, in two ways"
    assert dict(RING) == _KEYS
