"""The real service, scanned with sslyze for Mozilla's profiles."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.certificates import Authority
from tests.support.environment import leave_out
from tests.support.loopbackservice import port_of, twistd

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
SSLYZE = ROOT / ".venv/scanner/bin/sslyze"


def scan(port: int, profile: str, authority: Authority) -> str:
    done = subprocess.run(
        [SSLYZE, f"--mozilla_config={profile}", f"--certinfo_ca_file={authority.path}",
         f"127.0.0.1:{port}"],
        capture_output=True, text=True, timeout=300,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("options", "key", "profile", "verdict"),
    [
        ((), None, "intermediate", "OK - Compliant"),
        ((), rsa.generate_private_key(65537, 2048), "intermediate", "OK - Compliant"),
        (("--tls=modern",), None, "modern", "OK - Compliant"),
        ((), None, "modern", "FAILED - Not compliant"),
    ],
    ids=["intermediate", "intermediate-RSA", "modern", "intermediate-is-not-modern"],
)
def test_mozillas_profiles(tmp_path: Path, options, key, profile, verdict) -> None:
    """The last case shows that the scanner can tell the profiles apart."""
    if not SSLYZE.exists():
        leave_out("sslyze is not there; tools/scan-tls --prepare installs it")
    authority = Authority(tmp_path)
    cert, private = authority.issue("127.0.0.1", key=key)
    with twistd(
        tmp_path, "--token-required=false", f"--cert={cert}", f"--key={private}", *options
    ) as service:
        report = scan(port_of(service), profile, authority)
        assert service.stop() == 0
    assert verdict in report, report[report.find("COMPLIANCE"):]
