"""Ctrl-C or SIGTERM ends a start, and its tools, while it writes its rules."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.kernel, pytest.mark.parametrize("rig", ["nft"], indirect=True)]

# In place of iptables-restore: the first transaction sends the signal to the service and to itself,
# as a terminal's Ctrl-C does; later runs are the real tool.
STRIKING = """#!/bin/sh
[ -e {folder}/struck ] && exec /usr/sbin/iptables-nft-restore "$@"
text=
while IFS= read -r line; do
    text="$text$line
"
    case $line in
    \\**) {before} ;;
    COMMIT)
        printf %s "$text" | /usr/sbin/iptables-nft-restore --noflush
        {strike} ;;
    \\#*) text= && printf '%s\\n' "$line" ;;
    esac
done
"""
STRIKE = "touch {folder}/struck; kill -{name} $PPID; kill -{name} $$"


@pytest.fixture
def options(rig, request):
    """Options of a start whose tool ends it by a signal, before or after it writes."""
    name, applied = request.param
    strike = STRIKE.format(folder=rig.folder, name=name)
    texts = {
        "iptables": "", "iptables-save": '#!/bin/sh\nexec /usr/sbin/iptables-nft-save "$@"\n',
        "iptables-restore": STRIKING.format(
            folder=rig.folder, before=":" if applied else strike, strike=strike),
    }
    for tool, text in texts.items():
        (rig.folder / tool).write_text(text)
        (rig.folder / tool).chmod(0o755)
    return rig.options(f"--iptables={rig.folder / 'iptables'}")


every_moment = pytest.mark.parametrize(
    "options", [(name, applied) for name in ("INT", "TERM") for applied in (False, True)],
    ids=["INT", "INT, rules written", "TERM", "TERM, rules written"], indirect=True)


@every_moment
def test_a_signal_during_the_start_is_a_clean_stop(rig, options) -> None:
    """Exit status 0, and the rules are as before, whether the tool had written or not."""
    before = rig.saved()
    service = rig.twistd(*options)
    service.until("the start was cut short")
    assert service.ended() == 0
    while service.next() is not None:
        pass
    assert not [line for line in service.seen if "Traceback" in line or "envelope:" in line]
    assert (rig.folder / "struck").exists()
    assert rig.saved() == before


@pytest.mark.parametrize("options", [("INT", False)], indirect=True)
def test_a_signal_during_the_start_keeps_a_killed_services_drop_and_says_so(rig, options) -> None:
    """Exit status 1: the default drop is still in force, and the next service removes it."""
    before = rig.saved()
    killed = rig.start()
    killed.process.kill()
    killed.process.wait()
    service = rig.twistd(*options)
    service.until("^envelope: ipv4: the rules are still in force: a killed service left them")
    assert service.ended() == 1
    assert rig.drops()
    assert rig.start().stop() == 0
    assert rig.saved() == before
