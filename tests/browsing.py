"""What tests of pages do with a browser; the browser itself is a fixture (see `conftest`)."""

import os
from pathlib import Path

import pytest

SHOTS = os.environ.get("MAL_GRAPH_SCREENSHOTS")  # a folder for pictures that people look at


def missing(what):
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not installed, which CI must do")
    pytest.skip(f"{what} is not installed")  # people may run the other tests without a browser


def shot(page, name):
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{SHOTS}/{name}.png")


def serious_findings(page):
    """What axe finds that keeps people out."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        missing("axe-playwright-python")
    found = Axe().run(page).response["violations"]
    return [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
