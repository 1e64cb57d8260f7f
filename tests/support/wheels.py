"""Wheels of what is installed here, for an installation in a network without any registry."""

from __future__ import annotations

import re
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement


def needed_by(name: str) -> dict[str, Distribution]:
    """What a package needs, and what that needs, by name."""
    found: dict[str, Distribution] = {}
    todo = [name]
    while todo:
        for line in distribution(todo.pop()).requires or ():
            wanted = Requirement(line)
            if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
                continue
            if wanted.name not in found:
                found[wanted.name] = distribution(wanted.name)
                todo.append(wanted.name)
    return found


def pack(package: Distribution, folder: Path) -> Path:
    """Write the wheel that this package was installed from, without its compiled files."""
    tags = [line.split("-") for line in re.findall(
        r"^Tag: (.+)$", package.read_text("WHEEL") or "", re.MULTILINE)]
    tag = "-".join(".".join(dict.fromkeys(part)) for part in zip(*tags, strict=True))
    name = re.sub(r"[-_.]+", "_", package.metadata["Name"])
    path = folder / f"{name}-{package.version}-{tag}.whl"
    # Its programs, outside of the folder for packages, are made anew from its entry points.
    kept = [each for each in package.files or () if ".." not in each.parts
            and each.suffix != ".pyc" and each.name not in ("RECORD", "INSTALLER", "REQUESTED")]
    (record,) = {each.parent / "RECORD" for each in kept if each.name == "WHEEL"}
    with zipfile.ZipFile(path, "w") as archive:
        for each in kept:
            archive.write(Path(str(each.locate())), str(each))
        archive.writestr(str(record), "".join(f"{each},,\n" for each in (*kept, record)))
    return path
