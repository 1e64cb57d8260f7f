"""What is changed in rules before they are loaded into a network of a trial's own. Pure."""

from __future__ import annotations

import re
from typing import Final

# A table's flags. Those of a set stand deeper.
_FLAGS: Final = re.compile(r"(?m)^\tflags (.+)\n")
# Hands packets to a program, without the flag for the case that none listens. nft has written it in
# several ways.
_NFQUEUE: Final = re.compile(r"(?m)^(-A .* -j NFQUEUE\b(?!.*--queue-bypass).*)$")
_QUEUES: Final = (
    (re.compile(r"\bqueue to (?=[\d-])"), "queue flags bypass to "),
    (re.compile(r"\bqueue flags fanout to (?=[\d-])"), "queue flags bypass,fanout to "),
    (re.compile(r"\bqueue num ([\d-]+) fanout\b"), r"queue num \1 bypass,fanout"),
    (re.compile(r"\bqueue num ([\d-]+)(?![\d-]| bypass| fanout)"), r"queue num \1 bypass"),
)


def loadable_save(text: str) -> str:
    """What iptables-save printed; a program that packets are handed to lets them pass."""
    return _NFQUEUE.sub(r"\1 --queue-bypass", text)


def loadable_table(text: str) -> str:
    """A table as nft printed it; a program that packets are handed to lets them pass.

    It loses the flag that ties it to the process which loads it, here one run of nft.
    """
    for queue, bypassed in _QUEUES:
        text = queue.sub(bypassed, text)
    found = _FLAGS.search(text)
    if found is None:
        return text
    left = [flag for flag in found[1].split(",") if flag not in ("owner", "persist")]
    flags = f"\tflags {','.join(left)}\n" if left else ""
    return text[:found.start()] + flags + text[found.end():]
