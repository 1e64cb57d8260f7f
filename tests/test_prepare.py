"""What `tools/prepare` makes of a virtual environment that is not whole."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A Python whose virtual environments have one like itself, and whose pip installs nothing.
PYTHON = """#!/bin/sh
case "$*" in
    "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python && echo made >> done ;;
    "-m pip install"*) echo installed >> done ;;
esac
"""


@pytest.mark.process
@pytest.mark.parametrize("found", ["", "#!/bin/sh\nexit 1\n", PYTHON],
                         ids=["none", "one without pip", "a whole one"])
def test_a_virtual_environment_without_pip_is_made_anew(tmp_path: Path, found: str) -> None:
    """As one is left by Ctrl-C while it is made."""
    for name in ("setup.cfg", "pyproject.toml", "constraints.txt", "envelope/_version.py",
                 "tools/prepare"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name, text in (("bin/python3", PYTHON), (".venv/bin/python", found)):
        if text:
            path = tmp_path / name
            path.parent.mkdir(parents=True)
            path.write_text(text)
            path.chmod(0o755)
    for _ in range(2):
        subprocess.run(
            ["tools/prepare", "--without-test-programs"], cwd=tmp_path, check=True,
            env={**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"})
    done = (tmp_path / "done").read_text().split()
    assert done == (["installed"] if found == PYTHON else ["made", "installed"])
