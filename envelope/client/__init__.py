"""Open and hold an envelope: a client for Twisted programs, which knows nothing of the service.

    async with opened(reactor, url) as held:
        measure(held.address)
        end = await held.ended

`docs/clients.md` shows more.
"""

from __future__ import annotations

from envelope.client.opening import Family, Held, opened
from envelope.client.outcomes import Ended, Refused
from envelope.client.urls import BadURL

__all__ = ["BadURL", "Ended", "Family", "Held", "Refused", "opened"]
