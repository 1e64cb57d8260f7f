"""The lab that the end-to-end tests share: two hosts, once with each kind of iptables."""

import pytest

from envelope.netlab import LabUnavailable, NetLab
from tests.end_to_end.harness import Rig
from tests.environment import need


@pytest.fixture(params=["nft", "legacy"])
def rig(request, tmp_path):
    try:
        lab = NetLab()
        lab.__enter__()
    except LabUnavailable as reason:
        need(str(reason))
    rig = Rig(lab, tmp_path, request.param)
    try:
        yield rig
    finally:
        rig.close()
        lab.__exit__(None, None, None)
