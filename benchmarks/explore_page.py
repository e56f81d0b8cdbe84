"""How fluid a page of many images is: `python benchmarks/explore_page.py --images=20000`.

Writes an explorer of random heaps of features with 64-pixel thumbnails, opens it in a headless
Chromium that draws without a graphics card, and does what a reader does. Prints the milliseconds
between two drawn frames during pointing, moving, zooming and the lasso (60 frames a second are
16.7), and how many of them the page's own thread was busy: what is left with any graphics card.
Then, of ten each, from an action to its result for neighbours, colours, filters and search.

Needs `playwright` and a Chromium.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from simclr_tf.explore.data import ExploreData
from simclr_tf.explore.page import write_explore_page

_ARGUMENTS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--ignore-gpu-blocklist"]
_REPEATS = 10
_WATCH = """() => {
  window.intervals = []; window.watching = true;
  let last = performance.now();
  const tick = (now) => {
    window.intervals.push(now - last); last = now;
    if (window.watching) requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}"""
_STOP = "() => { window.watching = false; return window.intervals.slice(1); }"
_DRAWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def make_data(images: int, dimensions: int = 128) -> ExploreData:
    """Twenty heaps of features, each image a shade of grey noise."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(20, size=images)
    features = rng.normal(size=(20, dimensions))[kinds] + rng.normal(size=(images, dimensions))
    thumbnails = []
    for kind in kinds:
        buffer = io.BytesIO()
        pixels = rng.normal(10 * kind + 20, 20, (64, 64)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
        thumbnails.append(buffer.getvalue())
    names = [f"class_{kind:02d}/image_{i:06d}.png" for i, kind in enumerate(kinds)]
    columns = {
        "label": [f"class_{kind:02d}" for kind in kinds],
        "split": [("train", "validation", "test")[i % 3] for i in range(images)],
    }
    return ExploreData("Many images", names, thumbnails, features.astype(np.float32), columns, {})


def frames(page: Any, action: Callable[[], None]) -> tuple[list[float], float]:
    """Milliseconds between the frames drawn while something goes on, and busy ones of a frame."""
    watch = page.context.new_cdp_session(page)
    watch.send("Performance.enable")
    page.evaluate(_WATCH)
    before = _busy_seconds(watch)
    action()
    busy = _busy_seconds(watch) - before
    intervals = page.evaluate(_STOP)
    watch.detach()
    return intervals, 1000 * busy / len(intervals)


def _busy_seconds(watch: Any) -> float:
    metrics = watch.send("Performance.getMetrics")["metrics"]
    return {metric["name"]: metric["value"] for metric in metrics}["TaskDuration"]


def latency(page: Any, action: Callable[[int], None]) -> list[float]:
    """Milliseconds until what an action changes has been drawn, of each of some repeats."""
    taken = []
    for i in range(_REPEATS):
        began = time.perf_counter()
        action(i)
        page.evaluate(_DRAWN)
        taken.append(1000 * (time.perf_counter() - began))
    return taken


def say(what: str, values: list[float], busy: float | None = None) -> None:
    """A line of the table."""
    middle, high = np.percentile(values, [50, 95])
    own = "" if busy is None else f"{busy:7.1f}"
    print(f"{what:45} {middle:7.1f} {high:7.1f} {own}", flush=True)


def look(page: Any) -> None:
    """All measurements."""
    box = page.locator("#plot").bounding_box()
    center = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    reach = 0.35 * min(box["width"], box["height"])

    def circle(turns: int = 1) -> None:
        for angle in np.linspace(0, 2 * np.pi * turns, 60 * turns):
            page.mouse.move(center[0] + reach * np.cos(angle), center[1] + reach * np.sin(angle))

    def zoom() -> None:
        page.mouse.move(*center)
        for i in range(40):
            page.mouse.wheel(0, -120 if i < 20 else 120)

    def dragged() -> None:
        page.mouse.move(*center)
        page.mouse.down()
        circle()
        page.mouse.up()

    print(f"{'milliseconds':45} {'median':>7} {'95 %':>7} {'busy':>7}")
    say("between frames, pointing", *frames(page, lambda: circle(2)))
    page.click("[data-title='Pan']")
    say("between frames, moving", *frames(page, dragged))
    say("between frames, zooming", *frames(page, zoom))
    page.click("[data-title='Lasso Select']")
    say("between frames, drawing a lasso", *frames(page, dragged))
    page.wait_for_selector("#selection:not([hidden])")
    page.keyboard.press("Escape")
    rng = np.random.default_rng(1)
    directions = rng.uniform(-1, 1, (_REPEATS, 2)) * reach

    def click(i: int) -> None:
        page.mouse.click(*(np.array(center) + directions[i]))

    say("click to neighbours", latency(page, click))
    page.keyboard.press("Escape")
    say(
        "another colour",
        latency(
            page,
            lambda i: page.select_option("#colour", label=("split", "label")[i % 2]),
        ),
    )
    page.select_option("#filter-column", label="split")
    boxes = page.locator("#filter-values input[type=checkbox]")
    say("filter on or off", latency(page, lambda i: boxes.first.click()))
    say("search by name", latency(page, lambda i: page.fill("#search", f"image_00{i}")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        file = write_explore_page(Path(folder), make_data(args.images), ("pca", "random"))
        print(f"{args.images:,} images, {file.stat().st_size / 1e6:.0f} MB")
        browser = driver.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        began = time.perf_counter()
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready=yes]", timeout=120_000)
        print(f"ready after {time.perf_counter() - began:.1f} s")
        look(page)
        browser.close()


if __name__ == "__main__":
    main()
