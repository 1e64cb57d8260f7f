"""Tokens: any text, any signed header and any signed payload must give claims or a refusal.

The first letter tells what the rest is: `H` a header, `P` a payload, both with a valid signature;
anything else is the token itself. Exactly those tokens must be accepted that `referencetokens`
accepts.
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
# Bounds on calls of Python functions: for a token, and for each of its letters.
FEW, EACH = 300, 2


def one(data: bytes) -> None:
    """Verify one token, and compare with the reference."""
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
    assert isinstance(verdict, Claims) == strictly, f"{verdict} but the reference says {strictly}"
    assert judge(text) == verdict, "a second verification differs"
    assert dict(RING) == _KEYS
