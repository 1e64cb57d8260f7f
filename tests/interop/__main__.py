"""Try all clients, and write docs/interop.md."""

import sys
import tempfile
from pathlib import Path

from tests.interop.clients import CLIENTS
from tests.interop.page import PAGE, row, table, text
from tests.interop.run import Interop


def main() -> int:
    """Run; the status is 1 if a client is missing, and then the page is not written."""
    missing = [f"{each.name}: {why}" for each in CLIENTS if (why := each.missing())]
    present = [each for each in CLIENTS if not each.missing()]
    with tempfile.TemporaryDirectory() as folder, Interop(Path(folder), present) as interop:
        interop.run()
        rows = [row(peer) for peer in interop.peers]
    print(table(rows), *missing, sep="\n")
    if not missing:
        PAGE.write_text(text(rows))
    return bool(missing)


sys.exit(main())
