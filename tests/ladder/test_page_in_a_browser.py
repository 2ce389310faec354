"""The page in a real browser, from the disk, with the network off."""

import builders
import pytest
from browsing import serious_findings, shot
from ladder.ladders import HOSTILE, random_ladder
from ladder.test_blocks import stages

from mal_graph.ladder import Collapse, LadderEntry, page_text
from mal_graph.ladder.entries import Role, RungEntry
from mal_graph.ladder.rows import find_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def residual():
    """Two residual networks of other depth, folded by their names; the last layer of the base has no partner."""
    base, donor = stages([2, 3]), stages([2, 4])
    layers = [[i for i, place in enumerate(m.places) if place.role is Role.LAYER] for m in (base, donor)]
    pairs = zip(layers[0][:-1], layers[1], strict=False)
    rungs = [
        RungEntry(
            base=a, donor=b, score=0.5 + 0.02 * (a % 20), relation="equal", reason="alike", parts={"context": 0.4}
        )
        for a, b in pairs
    ]
    return LadderEntry(base=base, donor=donor, rungs=rungs)


def visible(page, selector):
    return page.locator(selector).evaluate_all("all => all.filter(one => !one.hasAttribute('display')).length")


def test_a_layer_is_found_by_searching_and_its_fold_is_opened(opened, residual):
    page = opened(page_text(residual, Collapse.BLOCKS))
    folded = visible(page, "g.row")
    page.keyboard.press("/")
    page.keyboard.type("n13")
    assert "found" in page.inner_text("#status")
    page.keyboard.press("Enter")
    assert "1 of" in page.inner_text("#status")
    assert visible(page, "g.row") > folded
    assert "n13" in page.inner_text("#detail")
    assert page.locator("g.row.pinned").count() == 1
    shot(page, "found")


@pytest.mark.parametrize(("width", "height"), [(1280, 700), (390, 844)])
def test_a_layer_that_is_found_is_seen(opened, residual, width, height):
    """Neither the tools above nor the panel below cover it in a narrow window."""
    page = opened(page_text(residual, Collapse.NONE), width, height)
    for word in ("n13", "stem"):
        page.fill("#search", word)
        page.press("#search", "Enter")
        row = page.locator("g.row.pinned").bounding_box()
        tools = page.locator(".tools").bounding_box()
        panel = page.locator("#panel").bounding_box()
        assert tools["y"] + tools["height"] <= row["y"] or row["y"] + row["height"] <= tools["y"]
        assert row["y"] + row["height"] <= (panel["y"] if width < 800 else height)


def test_a_pair_is_opened_by_keyboard_and_its_panel_read(opened, aligned):
    page = opened(page_text(aligned))
    page.focus("g.row[tabindex='0']")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    rung = aligned.rungs[0]
    told = page.inner_text("#panel")
    assert f"score {rung.score:.2f}" in told
    assert aligned.base.places[rung.base].name in told
    assert aligned.donor.places[rung.donor].name in told
    assert rung.runner_up.donor in told
    assert "median cosine" in told
    assert page.locator("#panel canvas").count() == 2
    assert page.evaluate(
        "() => [...document.querySelectorAll('#panel canvas')].every(one => "
        "new Set(one.getContext('2d').getImageData(0, 0, one.width, one.height).data).size > 3)"
    )
    shot(page, "pair")
    page.keyboard.press("Escape")
    assert page.locator("g.row.pinned").count() == 0


def test_a_group_that_is_picked_lights_what_moves_with_it_in_both_models(opened, aligned):
    page = opened(page_text(aligned))
    page.focus("g.row[tabindex='0']")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator("#panel .axes button", has_text="verified").first.click()
    rows = find_rows(aligned)
    lit = {int(row) for row in page.locator("g.row.moves").evaluate_all("all => all.map(one => one.dataset.row)")}
    index = next(i for i, group in enumerate(aligned.base.groups) if group.state == "verified")
    expected = {
        at
        for at, row in enumerate(rows)
        if row.base is not None and any(index in axis.groups for axis in aligned.base.places[row.base].axes)
    }
    assert lit == expected
    assert len(lit) > 1
    shot(page, "group")


def test_a_long_name_widens_nothing(opened, aligned):
    ladder = aligned.model_copy(deep=True)
    for model in (ladder.base, ladder.donor):
        for one in (*model.places, *model.groups):
            one.name = f"{one.name}{'x' * 500}"
    for width in (1280, 390):
        page = opened(page_text(ladder), width)
        page.locator("g.row[data-pair] text").first.click()
        page.locator("#panel .axes button").first.click()
        assert "rows move with group" in page.inner_text("#status")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator(".tools").bounding_box()["height"] < 200


def drawn(page):
    """What the script moves."""
    edges = [page.inner_html(f"#ladder .edges.{side}") for side in ("base", "donor")]
    return (*edges, page.get_attribute("#ladder", "height"))


def test_folding_and_opening_gives_the_drawing_that_python_made(opened, residual):
    page = opened(page_text(residual, Collapse.BLOCKS))
    first = (
        page.inner_html("#ladder .edges.base"),
        page.inner_html("#ladder .edges.donor"),
        page.get_attribute("#ladder", "height"),
    )
    fold = page.locator("g.fold").first
    fold.locator("text").first.click()
    assert fold.get_attribute("aria-expanded") == "true"
    assert drawn(page) != first
    fold.click()
    again = (
        page.inner_html("#ladder .edges.base"),
        page.inner_html("#ladder .edges.donor"),
        page.get_attribute("#ladder", "height"),
    )
    assert again == first


@pytest.mark.parametrize("seed", [0, 1, 3, 5, 7, 8])
def test_opening_all_gives_what_python_draws_open(opened, seed):
    ladder = random_ladder(seed, most=40)
    page = opened(page_text(ladder, Collapse.BLOCKS))
    assert page.locator("g.fold").count() > 0
    page.click("#unfold")
    plain = opened(page_text(ladder, Collapse.NONE))
    for side in ("base", "donor"):
        counts = [one.locator(f"#ladder .edges.{side} path").count() for one in (page, plain)]
        assert counts[0] == counts[1]
    assert page.locator(".crossing").count() == plain.locator(".crossing").count()


def test_filters_leave_what_they_say(opened, residual):
    page = opened(page_text(residual, Collapse.NONE))
    page.select_option("#filter", "alone")
    paired = {rung.base for rung in residual.rungs}
    alone = sum(place.role is Role.LAYER and i not in paired for i, place in enumerate(residual.base.places))
    others = {rung.donor for rung in residual.rungs}
    alone += sum(place.role is Role.LAYER and i not in others for i, place in enumerate(residual.donor.places))
    assert visible(page, "g.row") == alone
    page.select_option("#filter", "low")
    assert visible(page, "g.row") == sum(rung.score < 0.6 for rung in residual.rungs)
    page.select_option("#filter", "all")
    assert visible(page, "g.row") == len(find_rows(residual))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 800)])
def test_a_page_fits_and_has_no_serious_finding_of_axe(opened, residual, aligned, scheme, width, height):
    for name, ladder in (("blocks", residual), ("aligned", aligned)):
        page = opened(page_text(ladder), width, height, scheme)
        page.locator("g.row[data-pair] text").first.click()
        shot(page, f"{name}-{width}-{scheme}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert serious_findings(page) == []


def test_both_themes_can_be_chosen(opened, residual):
    page = opened(page_text(residual))
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.click("#theme")
    assert page.evaluate(colour) != light
    page.click("#theme")
    assert page.evaluate(colour) == light


def test_a_page_prints_without_its_tools(opened, residual):
    page = opened(page_text(residual))
    page.emulate_media(media="print")
    assert not page.is_visible(".tools")
    assert not page.is_visible("#panel")
    assert page.is_visible("#ladder")
    assert page.pdf().startswith(b"%PDF")


def test_without_javascript_the_drawing_stands(chromium, tmp_path, residual):
    context = chromium.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    (tmp_path / "page.html").write_text(page_text(residual, Collapse.NONE), encoding="utf-8")
    page.goto((tmp_path / "page.html").as_uri())
    assert page.is_visible("#ladder")
    assert page.locator("g.row").count() == len(find_rows(residual))
    assert not page.is_visible(".tools")
    context.close()


@pytest.mark.parametrize("seed", range(8))
def test_a_hostile_name_runs_nothing(opened, seed):
    ladder = random_ladder(seed, names=HOSTILE)
    page = opened(page_text(ladder, Collapse.NONE))
    for row in page.locator("g.row").all()[:12]:
        row.locator("text").first.click()
        page.keyboard.press("Escape")
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2


def test_a_hostile_name_runs_nothing_in_a_notebook(opened):
    ladder = random_ladder(2, names=HOSTILE)
    from mal_graph.ladder import draw_ladder, svg_text

    page = opened(f"<!DOCTYPE html><title>cell</title><div>{svg_text(draw_ladder(ladder))}</div>")
    assert page.locator("script, img").count() == 0


def test_real_models_are_drawn(opened):
    from mal_graph.ladder import ladder_of
    from mal_graph.matching import match_layers

    base, donor = builders.vit(seed=1), builders.vit(seed=2, blocks=3)
    page = opened(page_text(ladder_of(base, donor, match_layers(base, donor))))
    shot(page, "vit")
    assert page.locator("g.row[data-pair]").count() > 4
