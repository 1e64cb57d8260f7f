"""Wycheproof's JWS and JWK vectors (C2SP/wycheproof, Apache-2.0) through the public functions.

Every vector ends in exactly one of the outcomes below, and each outcome's count is fixed: a
vector that is dropped, or changes sides, fails the test.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from envelope.credentials.keys import KeyFileError
from envelope.credentials.tokens import TokenRefusal, verify_signature
from tests.support.environment import need
from tests.support.keyrings import key_ring

FOLDER = Path(
    os.environ.get("ENVELOPE_TEST_VECTORS") or Path(__file__).parents[3] / "shared" / "vectors"
)
# How the reason for one key of a set is put.
_SET = re.compile(r"(no key in the set is usable \()?key '[^']+': (.*?)(?(1)\))", re.DOTALL)
# By the file, the vectors' own verdict, and ours: taken, refused as a token for a reason, or its
# key refused as soon as it is read.
OUTCOMES = {
    "json_web_signature_test.json": {
        ("valid", "taken"): 9,
        # A valid JWS, but a token without a payload has no claims.
        ("valid", "malformed"): 1,
        # Valid with algorithms that are not spoken here.
        ("valid", "key: a symmetric key"): 10,
        ("valid", "key: a key's alg is not RS256"): 24,
        ("valid", "key: a key is neither Ed25519, P-256 nor RSA"): 2,
        ("invalid", "signature"): 241,
        ("invalid", "malformed"): 18,
        ("invalid", "unknown-key"): 2,
        ("invalid", "algorithm"): 1,
        ("invalid", "key: a symmetric key"): 30,
        ("invalid", "key: a key's alg is not RS256"): 59,
        ("invalid", "key: a key's use is not sig"): 2,
        ("invalid", "key: a key's key_ops do not include verify"): 2,
    },
    "json_web_key_test.json": {
        ("valid", "taken"): 1,
        ("valid", "key: a symmetric key"): 4,
        ("invalid", "key: a symmetric key"): 11,
        ("invalid", "key: a key's alg is not RS256"): 2,
        ("invalid", "key: a key's alg is not ES256"): 2,
        ("invalid", "key: a key's use is not sig"): 1,
        ("invalid", "key: a key is neither Ed25519, P-256 nor RSA"): 1,
        ("invalid", "key: the numbers of a key for ES256 are not those of a valid key"): 1,
        ("invalid", "key: an RSA key is weak (ROCA, CVE-2017-15361)"): 1,
        ("invalid", "key: an RSA key has fewer than 2048 bits"): 1,
        ("invalid", "key: an RSA key's exponent is even or too small"): 1,
    },
}


def load(name: str) -> Any:
    path = FOLDER / name
    if not path.exists():
        need(f"the vectors are not at {path}")
    return json.loads(path.read_text())


def keys_of(group: dict[str, Any]) -> dict[str, Any]:
    return group.get("public") or group["private"]


def outcome(keys: dict[str, Any], token: str) -> str:
    """What becomes of a token, when these keys are the service's."""
    try:
        ring = key_ring(json.dumps(keys))
    except KeyFileError as error:
        why = _SET.sub(r"\2", error.reason)
        return "key: a symmetric key" if "symmetric" in why else f"key: {why}"
    verdict = verify_signature(token, ring)
    return verdict.reason if isinstance(verdict, TokenRefusal) else "taken"


@pytest.mark.parametrize("name", OUTCOMES)
def test_every_vector_has_its_outcome(name) -> None:
    """No invalid vector is accepted; valid ones are refused only for unsupported features."""
    vectors = load(name)
    found = Counter(
        (test["result"], outcome(keys_of(group), test["jws"]))
        for group in vectors["testGroups"] for test in group["tests"]
    )
    assert found == OUTCOMES[name]
    assert found.total() == vectors["numberOfTests"]
    assert ("invalid", "taken") not in found


def test_tokens_of_other_rsa_algorithms_are_refused() -> None:
    """An RSA key without `alg` is one for RS256 alone."""
    found: Counter[str] = Counter()
    for group in load("json_web_signature_test.json")["testGroups"]:
        keys = keys_of(group)
        if keys.get("kty") == "RSA" and keys.get("alg", "RS256") != "RS256":
            without = {name: keys[name] for name in keys if name != "alg"}
            found.update(outcome(without, test["jws"]) for test in group["tests"])
    # The one that is taken is a sound RS256 token, invalid for its key's `alg` PS512 alone
    # (tcId 332, UsingRS256); with that `alg` in place the test above counts it as refused.
    assert found == {"algorithm": 73, "malformed": 9, "taken": 1}
