"""Every attack on a token that is known here, with the reason that it is refused with."""

from __future__ import annotations

from tests.support.ambiguoustokens import WRITINGS
from tests.support.tokenforgeries import FORGERIES

ATTACKS: dict[str, tuple[str, str]] = {**FORGERIES, **WRITINGS}
