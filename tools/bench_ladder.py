"""How long a picture of two deep models takes, and how a browser bears it: `python tools/bench_ladder.py -o FILE.md`.

Two residual networks of 2,000 convolutions each, every layer paired with the one of its name, so that no matching is
timed. Times are medians of three runs. Pages are opened from the disk in headless Chromium, driven by playwright; where
there is none, what it would measure is left out. Frames are those of a scroll through the whole page, everything open.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import onnx

from mal_graph import registry
from mal_graph.ladder import Collapse, LadderEntry, ladder_of, page_text
from mal_graph.matching import match_layers
from mal_graph.network import find_layers

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "04_look"))
from make_models import residual_network

BLOCKS = (333, 333, 332)
WIDTHS = (4, 4, 4)
RUNS = 3
FOLDED = {"as it opens": None, "nothing folded": Collapse.NONE}
SCROLL = """async () => {
  const times = [];
  await new Promise((done) => {
    let y = 0;
    const step = (time) => {
      times.push(time);
      scrollTo(0, (y += 400));
      times.length < 120 ? requestAnimationFrame(step) : done();
    };
    requestAnimationFrame(step);
  });
  return times.slice(1).map((time, i) => time - times[i]);
}"""


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """The median time of a call in seconds, and what it gives."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - start)
    return median(times), result


def drawn(folder: Path) -> tuple[float, LadderEntry]:
    """How long the data of the picture take, and these."""
    graphs = []
    for seed in (0, 1):
        path = folder / f"deep{seed}.onnx"
        onnx.save(residual_network(BLOCKS, WIDTHS, seed), path)
        graphs.append(registry.as_graph(str(path)))
    names = [layer.name for layer in find_layers(graphs[0])]
    match = match_layers(*graphs, [(name, name) for name in names])
    return timed(lambda: ladder_of(*graphs, match))


def in_browser(path: Path) -> Iterator[tuple[str, str]]:
    """What a browser measures of a page."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return
    if chromium is None:
        return
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        start = time.perf_counter()
        page.goto(path.as_uri())
        loaded = time.perf_counter() - start
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        yield "first paint", f"{paint / 1000:.2f} s"
        yield "loaded, with its script", f"{loaded:.2f} s"
        start = time.perf_counter()
        page.click("#unfold")
        yield "all folds opened, or closed", f"{time.perf_counter() - start:.2f} s"
        frames = sorted(page.evaluate(SCROLL))
        yield (
            "frames of a scroll, median and 95 %",
            f"{median(frames):.0f} and {frames[len(frames) * 95 // 100]:.0f} ms",
        )
        browser.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, help="where the table goes; stdout if left out")
    options = parser.parse_args()
    lines = ["# Pictures of deep models", ""]
    with tempfile.TemporaryDirectory() as name:
        seconds, ladder = drawn(Path(name))
        counts = [len(model.places) for _, model in ladder.sides()]
        lines += [
            f"Two networks of {len(ladder.rungs):,} layers, {counts[0]:,} and {counts[1]:,} places. The data of the "
            f"picture take {seconds:.2f} s.",
            "",
            "| page | measured | |",
            "|---|---|---|",
        ]
        for title, collapse in FOLDED.items():
            taken, text = timed(lambda collapse=collapse: page_text(ladder, collapse))
            path = Path(name) / "page.html"
            path.write_text(text, encoding="utf-8")
            size = f"{len(text.encode()) / 1e6:.2f} MB"
            rows = [("written in", f"{taken:.2f} s"), ("size", size), *in_browser(path)]
            lines += [f"| {title} | {what} | {value} |" for what, value in rows]
    text = "\n".join([*lines, ""])
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
