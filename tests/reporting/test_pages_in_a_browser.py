"""Reports in a real browser: nothing runs but the page's own script, and nobody is kept out."""

import pytest
from browsing import serious_findings, shot
from report_results import MAKERS, result

from mal_graph import registry
from mal_graph.reporting.reporter import report_text, result_document

pytestmark = pytest.mark.slow
KINDS = ("merged", "hostile", "auto", "sweep", "zoo", "compressed")


@pytest.mark.parametrize("name", MAKERS)
def test_a_report_opens_without_an_error_and_fits(opened, name):
    text = report_text(result_document(result(name)), "html")
    for width in (1280, 390):
        page = opened(text, width, 900)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.inner_text("h1")
        shot(page, f"report-{name}-{width}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", KINDS)
def test_axe_has_no_serious_finding_in_a_report(opened, name, scheme):
    page = opened(report_text(result_document(result(name)), "html"), 1280, 900, scheme)
    for folded in page.locator("details > summary").all():
        folded.click()
    assert serious_findings(page) == []


def test_the_verdict_comes_first(opened):
    page = opened(report_text(result_document(result("merged")), "html"))
    top = page.locator(".verdict").bounding_box()["y"]
    assert top < 250
    assert result("merged").verdict.text.split(":")[0] in page.inner_text(".verdict")


def test_a_hostile_result_shows_its_names_as_text_in_a_notebook_too(opened):
    piece = registry.reporter().html(result("hostile"))
    page = opened(f"<!DOCTYPE html><title>cell</title><main>{piece}</main>")
    assert page.locator("script, img").count() == 0
    assert "</script>" in page.inner_text("main")
