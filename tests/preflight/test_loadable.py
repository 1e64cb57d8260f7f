"""Rules are changed where they would do something else in another network."""

from __future__ import annotations

import pytest

from envelope.preflight.loadable import loadable_save, loadable_table


@pytest.mark.parametrize(("rule", "loaded"), [
    ("-A INPUT -j NFQUEUE --queue-num 3", "-A INPUT -j NFQUEUE --queue-num 3 --queue-bypass"),
    ("-A INPUT -j NFQUEUE --queue-num 3 --queue-bypass", None),
    ('-A INPUT -m comment --comment "NFQUEUE" -j ACCEPT', None),
    (":NFQUEUE - [0:0]", None),
])
def test_a_program_that_packets_are_handed_to_lets_them_pass(
    rule: str, loaded: str | None
) -> None:
    assert loadable_save(f"*filter\n{rule}\nCOMMIT\n") == f"*filter\n{loaded or rule}\nCOMMIT\n"


@pytest.mark.parametrize(("rule", "loaded"), [
    ("tcp dport 9 queue num 3", "tcp dport 9 queue num 3 bypass"),
    ("tcp dport 9 queue num 30", "tcp dport 9 queue num 30 bypass"),
    ("queue num 1-3 fanout", "queue num 1-3 bypass,fanout"),
    ("queue to 3", "queue flags bypass to 3"),
    ("queue flags fanout to 1-3", "queue flags bypass,fanout to 1-3"),
    ("queue num 3 bypass", None), ("queue num 1-3 bypass,fanout", None),
    ("queue flags bypass to 3", None), ("queue flags bypass,fanout to 1-3", None),
])
def test_so_it_does_with_nft(rule: str, loaded: str | None) -> None:
    assert loadable_table(f"\t\t{rule}\n") == f"\t\t{loaded or rule}\n"
