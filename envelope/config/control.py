"""Where the control socket of a service is (`--control`). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

# None: the option was not given. "none": no socket is wanted.
ControlOption: TypeAlias = Path | Literal["none"] | None

_FOLDER: Final = "/run/envelope"
_NAME: Final = "control"


def control_path(option: ControlOption, environ: Mapping[str, str]) -> Path | None:
    """The socket's path, None for no socket.

    systemd sets RUNTIME_DIRECTORY to the folder of RuntimeDirectory=, or to several, separated by
    colons (systemd.exec(5)).
    """
    if option == "none":
        return None
    if option is not None:
        return option
    folder = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(folder or _FOLDER).absolute() / _NAME
