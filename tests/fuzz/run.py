"""Fuzzes one target with atheris: `python -m tests.fuzz.run PATH [libFuzzer's options]`.

PATH is token, request or frame. It starts with the corpus. Inputs that reach new code are kept in
memory only, unless folders are named. An input that fails is written to `crash-*` in the working
directory; `python -m tests.fuzz.run PATH crash-...` repeats it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import atheris

CORPUS = Path(__file__).with_name("corpus")
# The longest input of each target, in bytes; tokens may be 8 kB long.
PATHS = {"token": 9000, "request": 4000, "frame": 2000}


def main() -> None:
    """Fuzz until the time is up or an input fails."""
    path, options = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if path not in PATHS:
        sys.exit(f"usage: python -m tests.fuzz.run {'|'.join(PATHS)} [libFuzzer's options]")
    with atheris.instrument_imports(include=["envelope", "h11", "autobahn.websocket"]):
        target = import_module(f"tests.fuzz.{path}")
    if all(option.startswith("-") for option in options):
        seeds = ",".join(str(seed) for seed in sorted((CORPUS / path).iterdir()))
        options = [f"-seed_inputs={seeds}", *options]
    atheris.Setup([sys.argv[0], f"-max_len={PATHS[path]}", *options], target.one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
