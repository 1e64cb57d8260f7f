"""The faults that `make mutants` plants still fit the source, and the tests that notice them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.faults import FAULTS, Fault
from tests.kernel.scenarios import SCENARIOS

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.name}-{fault.kinds[0]}")
def test_a_fault_can_be_planted_and_names_what_notices_it(fault: Fault) -> None:
    """Its text is in one place of the firewall's or the sessions' source, and once.

    With it the source is Python still: tests that cannot begin notice nothing.
    """
    place = fault.place(ROOT / "envelope")
    assert fault.old != fault.new
    compile(place.read_text().replace(fault.old, fault.new), place, "exec")
    file, _, test = fault.by.partition("::")
    assert fault.by in SCENARIOS or (
        f"def {test.partition('[')[0]}" in (ROOT / file).read_text()
    )
