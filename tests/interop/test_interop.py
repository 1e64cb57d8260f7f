"""Clients that nobody here wrote open envelopes, hold them, and see how they end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.clients import CLIENTS, Client
from tests.interop.page import expected, row, written_rows
from tests.interop.run import Interop
from tests.support.environment import leave_out, need


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[str]]]:
    """The outcomes of all clients that this machine has, by name."""
    present = [each for each in CLIENTS if not each.missing()]
    with Interop(tmp_path_factory.mktemp("interop"), present) as interop:
        interop.run()
        yield {peer.client.name: row(peer) for peer in interop.peers}


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_client_works_as_the_page_says(rows: dict[str, list[str]], client: Client) -> None:
    if missing := client.missing():
        (leave_out if client.optional else need)(missing)
    name, version, *cells = rows[client.name]
    assert version
    assert cells == expected(client)
    assert cells == written_rows()[name][2:]
