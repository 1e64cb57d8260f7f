"""The fixture `rig`: two hosts, by default once for each kind of iptables."""

from contextlib import ExitStack

import pytest

from envelope.lab import LabUnavailable, NetLab
from tests.end_to_end.harness import Rig
from tests.support.environment import need


@pytest.fixture(params=["nft", "legacy"])
def rig(request, tmp_path):
    with ExitStack() as stack:
        try:
            lab = stack.enter_context(NetLab())
        except LabUnavailable as reason:
            need(str(reason))
        rig = Rig(lab, tmp_path, request.param)
        stack.callback(rig.close)
        yield rig
