"""Opens an envelope over one address family or both, and closes it at the end of a block."""

from __future__ import annotations

from enum import StrEnum
from types import TracebackType
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from envelope.addresses import Address
from envelope.client.connection import Connection
from envelope.client.outcomes import Ended, Refused
from envelope.client.urls import ServerURL

# Seconds from the start of an attempt to the answer. A service whose firewall does not answer says
# so after 9 s.
PATIENCE: Final = 11.0


class Family(StrEnum):
    """Over which address family to open an envelope."""

    ANY = "any"  # the one that connects first
    IPV4 = "4"
    IPV6 = "6"
    BOTH = "both"  # one over each, with the same token: one visitor


_VERSIONS: Final[dict[Family, list[int | None]]] = {
    Family.ANY: [None], Family.IPV4: [4], Family.IPV6: [6], Family.BOTH: [4, 6],
}


class Held:
    """An open envelope; over both families IPv4's comes first.

    `addresses` are the server's that were connected to, `client_addresses` our own, in the same
    order. `missing` says why one of both families could not be had; None if nothing is missing.
    """

    def __init__(self, connections: list[Connection], missing: Refused | None) -> None:
        self.addresses: tuple[Address, ...] = tuple(each.address for each in connections)
        self.client_addresses: tuple[Address, ...] = tuple(
            each.client_address for each in connections
        )
        self.missing = missing
        self._end: Ended | None = None
        self._waiting: list[Deferred[Ended]] = []
        for each in connections:
            each.ended.addCallback(self._over)

    @property
    def address(self) -> Address:
        """The server's address that was connected to: the one to measure."""
        return self.addresses[0]

    @property
    def client_address(self) -> Address:
        """The client's own address, which was let in unless something translates it."""
        return self.client_addresses[0]

    @property
    def ended(self) -> Deferred[Ended]:
        """A new Deferred that fires when the envelope ends, over both families when either does.

        It may be cancelled.
        """
        waiting: Deferred[Ended] = Deferred(self._waiting.remove)
        if self._end is None:
            self._waiting.append(waiting)
        else:
            waiting.callback(self._end)
        return waiting

    def _over(self, end: Ended) -> None:
        if self._end is None:
            self._end = end
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(end)


class _Opening:
    """See `opened`."""

    def __init__(
        self, connections: dict[int | None, Connection], partial: bool, patience: float
    ) -> None:
        self._connections = connections
        self._partial = partial
        self._patience = patience
        self._open: list[Connection] = []

    async def __aenter__(self) -> Held:
        attempts = [
            Deferred.fromCoroutine(each.open(version, self._patience))
            for version, each in self._connections.items()
        ]
        # A cancelled one fires too: each attempt then fails with CancelledError.
        outcomes: Any = await DeferredList(attempts, consumeErrors=True)
        faults: dict[int | None, Failure] = {}
        for (version, each), (success, outcome) in zip(
            self._connections.items(), outcomes, strict=True
        ):
            if success:
                self._open.append(each)
            else:
                faults[version] = outcome
        acceptable = self._partial and self._open and all(map(_is_refusal, faults.values()))
        error = _error_of(faults, len(self._connections) > 1) if faults else None
        if error is not None and not acceptable:
            await self._close()
            raise error
        return Held(self._open, error if isinstance(error, Refused) else None)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        await DeferredList([Deferred.fromCoroutine(each.close()) for each in self._open])


def opened(
    reactor: Any, url: str, *, family: Family = Family.ANY, partial: bool = False,
    insecure: bool = False, patience: float = PATIENCE, user_agent: str = "envelope",
) -> _Opening:
    """Open an envelope for an `async with` block, which closes it; `url` is ws:// or wss://.

    The block gets a `Held`. Entering it raises `Refused` if no envelope opens within `patience`
    reactor seconds. `Family.BOTH` needs both to open; with `partial` one is enough, and
    `Held.missing` tells why the other did not. With `insecure` the certificate is not verified.
    No proxy is used. Raises `BadURL` if the URL is malformed.
    """
    parsed = ServerURL.parse(url, "ws", "wss")
    return _Opening({
        version: Connection(reactor, parsed, insecure, user_agent)
        for version in _VERSIONS[family]
    }, partial, patience)


def _is_refusal(failure: Failure) -> bool:
    return isinstance(failure.value, Refused)


def _error_of(faults: dict[int | None, Failure], both: bool) -> BaseException:
    """What to raise: what is no refusal before what is one; of both families' refusals both."""
    refusals: dict[int | None, Refused] = {}
    for version, failure in faults.items():
        error: Any = failure.value
        if not isinstance(error, Refused):
            return error  # type: ignore[no-any-return]
        refusals[version] = error
    first, *others = refusals.values()
    if not both or any(str(each) == str(first) for each in others):
        return first
    texts = [
        f"{each.text} (over IPv{version})" if each is first or each.status is None
        else f"{each.status} {each.text} (over IPv{version})"
        for version, each in refusals.items()
    ]
    return Refused(first.server, first.status, ", ".join(texts), first.retry_after)
