"""The settings as an operator would write them, for the log and for `/status`; no secrets. Pure."""

from __future__ import annotations

import shlex
from typing import TypeAlias
from urllib.parse import urlsplit

from envelope.config import OPTIONS, Config
from envelope.text import printable

# None is an option without a value, such as `--max-duration` when it is not given.
Shown: TypeAlias = str | int | float | bool | list[str | int] | None


def shown(config: Config) -> dict[str, Shown]:
    """Every option's value by its name on the command line, ready for JSON.

    Of `--verify-jwks-url` only the host and the path are shown: a query, or a password before the
    host, may be a secret. Of keys only the files' names are known here.
    """
    values = {option.name: _plain(getattr(config, option.field)) for option in OPTIONS}
    if config.verify_jwks_url is not None:
        values["verify-jwks-url"] = without_secrets(config.verify_jwks_url)
    return values


def as_words(config: Config) -> str:
    """The options that differ from their defaults, as on a command line; `none` for no value."""
    usual = shown(Config())
    return " ".join(
        f"--{name}={shlex.quote(printable(_text(each)))}"
        for name, value in shown(config).items() if value != usual[name]
        for each in ((value or ["none"]) if isinstance(value, list) else [value])
    )


def _text(value: Shown) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:f}".rstrip("0").rstrip(".")
    return str(value)


def without_secrets(url: str) -> str:
    """An https URL without user, password and query."""
    parts = urlsplit(url)
    return f"https://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _plain(value: object) -> Shown:
    if isinstance(value, tuple):
        return [each if isinstance(each, int) else str(each) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
