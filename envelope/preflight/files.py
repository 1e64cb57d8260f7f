"""Whether the files of keys and certificate can be used, and the keys of the URL be fetched."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from envelope.config import Config
from envelope.credentials.fetch import Fetcher, HttpsFetcher, trust_of
from envelope.credentials.httpreply import FetchFailed
from envelope.credentials.keyfiles import KeyFiles
from envelope.credentials.keys import KeyFileError
from envelope.credentials.pemfiles import TLSFileError
from envelope.credentials.publishedkeys import read_set
from envelope.credentials.tls import ServerTLS
from envelope.credentials.validity import utc_text
from envelope.preflight.findings import Finding, Level, fail, ok, warn

_REPLACE = "replace the file, or let the service's user read it"


def find_key_files(config: Config, _: Mapping[str, str]) -> list[Finding]:
    """Fail for a file of --verify-key that cannot be used."""
    found = []
    for path in config.verify_key:
        try:
            kids = ", ".join(key.kid for key in KeyFiles([path]).ring.values())
        except KeyFileError as error:
            found.append(fail(str(error), _REPLACE))
        else:
            found.append(ok(f"{path} has the keys {kids}"))
    if found and all(each.level == Level.OK for each in found):
        try:
            KeyFiles(config.verify_key)
        except KeyFileError as error:
            found.append(fail(str(error), "leave one of the two out"))
    return found


def find_certificate(config: Config, _: Mapping[str, str]) -> list[Finding]:
    """Fail for a certificate or key that cannot be used; warn of dates and an incomplete chain."""
    if config.cert is None or config.key is None:
        return [warn("INSECURE: no certificate, so tokens travel in the clear",
                     "give --cert and --key, unless a proxy before the service ends TLS")]
    try:
        tls = ServerTLS.load(config.cert, config.key, config.tls)
    except TLSFileError as error:
        return [fail(str(error), _REPLACE)]
    found = [ok(f"{config.cert} and {config.key} match")]
    trouble = tls.validity.trouble(datetime.now(UTC))
    if trouble:
        found.append(warn(trouble, "renew it, and see to it that the clock is right"))
    else:
        found.append(ok(f"the certificate is valid until {utc_text(tls.validity.not_after)}"))
    if tls.gap:
        what, do = tls.gap.split(" (", 1)
        found.append(warn(what, do.rstrip(")")))
    if tls.limitation:
        what, do = tls.limitation.rsplit("; ", 1)
        found.append(warn(what, do))
    return found


def find_authorities(config: Config, _: Mapping[str, str]) -> list[Finding]:
    """Fail for a file of --jwks-ca that cannot be used."""
    if config.jwks_ca is None:
        return []
    try:
        trust_of(config.jwks_ca)
    except TLSFileError as error:
        return [fail(str(error), _REPLACE)]
    return [ok(f"{config.jwks_ca} has authorities")]


async def find_published_keys(reactor: Any, config: Config) -> list[Finding]:
    """Fetch the keys of --verify-jwks-url; see `judge_published_keys`."""
    if config.verify_jwks_url is None:
        return []
    try:
        fetcher = HttpsFetcher(reactor, config.verify_jwks_url, trust_of(config.jwks_ca))
    except TLSFileError:
        # `find_authorities` says so.
        return []
    return await judge_published_keys(fetcher, config)


async def judge_published_keys(fetcher: Fetcher, config: Config) -> list[Finding]:
    """Warn when `fetcher` does not bring keys.

    A start goes on without them, so that machines which boot while the server of the keys is down
    recover without help.
    """
    # A query may hold a secret.
    shown = (config.verify_jwks_url or "").partition("?")[0]
    try:
        keys = read_set((await fetcher.fetch()).content, shown).keys
    except FetchFailed as error:
        why = str(error)
    except KeyFileError as error:
        why = error.reason
    else:
        return [ok(f"{shown} has the keys {', '.join(key.kid for key in keys)}")]
    alone = "" if config.verify_key else ", and without them no client is let in"
    return [warn(f"the keys of {shown} cannot be fetched now: {why}{alone}",
                 "see to it that the server answers; a start tries again until it does")]
