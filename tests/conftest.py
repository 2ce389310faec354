"""What holds for every test: hypothesis draws the same examples each time and sets no time limit per example.

For tests of pages there is a headless Chromium, from the disk, with the network off. Where none is found these tests
skip, except in CI, where they fail.
"""

import shutil
import zlib

import pytest
from browsing import missing
from hypothesis import HealthCheck, settings

settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    max_examples=30,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("repeatable")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Of the cases of a sampled law, marks as `whole` all but one in so many, the same ones each time."""
    laws = {}
    for item in items:
        if item.get_closest_marker("sampled"):
            laws.setdefault((item.path, item.originalname), []).append(item)
    for (_, name), cases in laws.items():
        (step,) = cases[0].get_closest_marker("sampled").args
        first = zlib.crc32(name.encode()) % min(step, len(cases))
        for place, item in enumerate(cases):
            if place % step != first:
                item.add_marker("whole")


NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


@pytest.fixture(scope="session")
def chromium():
    path = next(filter(None, map(shutil.which, NAMES)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright")
    if path is None:
        missing("Chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, tmp_path):
    """Opens a page from the disk; no error may be written, nothing asked for, and no script of a name run."""
    pages = []

    def open_page(text, width=1280, height=900, scheme="light"):
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, offline=True, reduced_motion="reduce"
        )
        page = context.new_page()
        page.told = []
        page.on("console", lambda message: page.told.append(message.text))
        page.on("dialog", lambda dialog: page.told.append(dialog.message) or dialog.dismiss())
        page.on("pageerror", lambda error: page.told.append(str(error)))
        page.on("request", lambda request: request.url.startswith("file:") or page.told.append(request.url))
        path = tmp_path / f"page{len(pages)}.html"
        path.write_text(text, encoding="utf-8")
        page.goto(path.as_uri())
        pages.append((context, page))
        return page

    yield open_page
    for context, page in pages:
        assert page.told == []
        assert page.evaluate("window.hit") is None
        context.close()
