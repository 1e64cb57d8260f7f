"""A real browser for tests: Debian's Chromium without a window, driven by selenium.

`make prepare` installs Chromium, its driver and the packages of `tests/node` where it may.
"""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.environment import need

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

NODE_MODULES = Path(__file__).parents[1] / "node" / "node_modules"
_FLAGS = (
    # Root has no sandbox.
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    # Without these it asks for hosts of its maker's, at every start and later.
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)
# Seconds for a page to load, and for an asynchronous script to call back.
PATIENCE = 30.0


@contextmanager
def browser(*flags: str) -> Iterator[Chrome]:
    """Start Chromium with an empty profile and `flags`, and end it with the block.

    `get_log("browser")` has the console. It skips the test, or fails it in CI, where Chromium,
    its driver or selenium is missing. A start takes about a second: share one among tests.
    """
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        need("chromium and chromedriver are not installed (Debian: chromium, chromium-driver)")
    try:
        from selenium import webdriver
    except ImportError:
        need("selenium is not installed (pip install -e '.[clients]')")
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        for flag in (*_FLAGS, f"--user-data-dir={profile}/data", *flags):
            options.add_argument(flag)
        service = webdriver.ChromeService(
            chromedriver, env={**os.environ, "HOME": profile, "TMPDIR": profile}
        )
        driver = webdriver.Chrome(options, service)
        try:
            driver.set_page_load_timeout(PATIENCE)
            driver.set_script_timeout(PATIENCE)
            # It starts with a page of its own, which may write to the console.
            driver.get("about:blank")
            driver.get_log("browser")
            yield driver
        finally:
            driver.quit()


def trusting(certificate: Path) -> str:
    """The flag with which Chromium accepts the first certificate of this PEM file."""
    public = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    digest = sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return f"--ignore-certificate-errors-spki-list={base64.b64encode(digest).decode()}"


def node_file(path: str) -> Path:
    """A file of the packages in tests/node, such as `axe-core/axe.min.js`; `need`s it."""
    file = NODE_MODULES / path
    if not file.exists():
        need("the packages of tests/node are not installed (make prepare)")
    return file
