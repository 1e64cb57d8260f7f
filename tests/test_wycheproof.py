"""Wycheproof's JWS and JWK vectors (C2SP/wycheproof, Apache-2.0) through the public functions."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from envelope.keys import KeyFileError, KeyRing
from envelope.tokens import TokenRefusal, verify_signature
from tests.environment import need

FOLDER = Path(
    os.environ.get("ENVELOPE_TEST_VECTORS", Path(__file__).parents[2] / "shared" / "vectors")
)
# Valid JWS that are no access tokens of ours: refused, each for its reason.
NOT_OURS = {
    "an algorithm that is not taken": lambda g, _: _algorithm(g) not in ("RS256", "ES256"),
    "an empty payload, which is no claims set": lambda _, t: ".." in t["jws"],
}


def load(name: str):
    path = FOLDER / name
    if not path.exists():
        need(f"the vectors are not at {path}")
    return json.loads(path.read_text())


def _keys(group) -> dict:
    return group.get("public") or group["private"]


def _algorithm(group) -> str | None:
    keys = _keys(group)
    return keys.get("alg") or (keys.get("keys") or [{}])[0].get("alg")


def taken(group, test) -> bool:
    """Whether the token would be taken, its key loaded from the group's own."""
    try:
        ring = KeyRing.from_jwk_set_text(json.dumps(_keys(group)).encode(), "vector")
    except KeyFileError:
        return False
    return not isinstance(verify_signature(test["jws"], ring), TokenRefusal)


@pytest.mark.parametrize("name", ["json_web_signature_test.json", "json_web_key_test.json"])
def test_every_vector_agrees(name) -> None:
    """Nothing invalid is taken; what is valid is taken, or refused for a reason listed above."""
    vectors = load(name)
    outcome: Counter[str] = Counter()
    for group in vectors["testGroups"]:
        for test in group["tests"]:
            accepted = taken(group, test)
            if test["result"] == "invalid":
                assert not accepted, (group["comment"], test["tcId"], test["comment"])
                outcome["refused"] += 1
            elif accepted:
                outcome["taken"] += 1
            else:
                reasons = [why for why, applies in NOT_OURS.items() if applies(group, test)]
                assert reasons, (group["comment"], test["tcId"], test["comment"])
                outcome[reasons[0]] += 1
    assert sum(outcome.values()) == vectors["numberOfTests"]
    assert outcome["taken"] > 0
