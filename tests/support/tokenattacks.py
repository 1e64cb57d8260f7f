"""All attacks on tokens: forgeries and ambiguous forms, each with the reason for its refusal."""

from __future__ import annotations

from tests.support.ambiguoustokens import WRITINGS
from tests.support.tokenforgeries import FORGERIES

ATTACKS: dict[str, tuple[str, str]] = {**FORGERIES, **WRITINGS}
