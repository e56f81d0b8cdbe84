"""What a reader does with the explorer, in a real browser."""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.path import Path as Polygon

from data_prep.csv_files import csv_line, read_written
from data_prep.manifest.manifest import Manifest
from simclr_tf.explore.data import ExploreData
from simclr_tf.explore.page import write_explore_page
from tests.browser import Watched, opened
from tests.chromium import OVERLAPS
from tests.simclr_tf.explore.common import NASTY, make_data, pixels

pytestmark = pytest.mark.slow

# Where images lie on the screen.
_PLACES = """() => {
  const layout = plot._fullLayout, box = plot.getBoundingClientRect();
  const points = data.projections[state.projection].points;
  return data.names.map((_, i) => [
    box.left + layout.xaxis._offset + layout.xaxis.l2p(points[2 * i]),
    box.top + layout.yaxis._offset + layout.yaxis.l2p(points[2 * i + 1]),
  ]);
}"""
_PLOTTED = "() => plot.data.flatMap((trace) => trace.customdata ?? [])"
_COLORS = """() => {
  const dots = plot.data.filter((trace) => trace.name === "images");
  return [dots.flatMap((trace) => trace.customdata), dots.flatMap((trace) => trace.marker.color)];
}"""
_HIGHLIGHTED = """() => plot.data.flatMap(
  ({customdata, selectedpoints}) => (selectedpoints ?? []).map((place) => customdata[place]))"""
_CARD_PIXELS = """() => {
  const {width, height} = cardTile;
  return [width, height, [...cardTile.getContext("2d").getImageData(0, 0, width, height).data]];
}"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExploreData]:
    data = make_data(title=f"Runs of {NASTY[0]}")
    return write_explore_page(tmp_path_factory.mktemp("explore"), data, ("pca", "random")), data


@pytest.fixture
def watched(browser: Any, written: tuple[Path, ExploreData]) -> Iterator[Watched]:
    with opened(browser, written[0]) as page:
        page.page.wait_for_selector("html[data-ready=yes]")
        yield page
        page.check_quiet()


@pytest.fixture
def page(watched: Watched) -> Any:
    return watched.page


@pytest.fixture
def data(written: tuple[Path, ExploreData]) -> ExploreData:
    return written[1]


def places(page: Any) -> np.ndarray:
    return np.array(page.evaluate(_PLACES))


def lonely(page: Any) -> int:
    """The image whose dot is farthest from all others: pointing at it is not ambiguous."""
    at = places(page)
    apart = np.linalg.norm(at[:, None] - at, axis=2) + 1e9 * np.eye(len(at))
    return int(apart.min(axis=1).argmax())


def point_at(page: Any, index: int) -> tuple[float, float]:
    x, y = places(page)[index]
    page.mouse.move(x - 2, y)
    page.mouse.move(x, y)
    return x, y


def brute_force(features: np.ndarray, index: int) -> tuple[list[int], list[float]]:
    rows = features.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    distance = 1 - rows @ rows[index]
    order = [row for row in np.argsort(distance) if row != index][:7]
    return order, distance[order].tolist()


def plotted(page: Any) -> list[int]:
    return sorted(page.evaluate(_PLOTTED))


def test_pointing_shows_name_and_thumbnail(page: Any, data: ExploreData) -> None:
    index = lonely(page)
    point_at(page, index)
    page.wait_for_selector(f"#card:not([hidden]) canvas[data-drawn='{index}']")
    assert page.inner_text("#card .name") == data.names[index]
    assert data.columns["label"][index] in page.inner_text("#card dl")
    width, height, shown = page.evaluate(_CARD_PIXELS)
    drawn = np.array(shown).reshape(height, width, 4)[..., :3]
    differences = [np.abs(drawn - pixels(jpeg)).mean() for jpeg in data.thumbnails]
    assert int(np.argmin(differences)) == index
    assert differences[index] < 10
    page.mouse.move(5, 5)
    page.wait_for_selector("#card", state="hidden")


def test_the_card_never_covers_what_was_chosen_and_goes_away_while_one_types(page: Any) -> None:
    index = lonely(page)
    point_at(page, index)
    page.wait_for_selector("#card:not([hidden])")
    edge, end = page.evaluate(
        "() => [plot, document.getElementById('card')].map(e => e.getBoundingClientRect().right)"
    )
    assert end <= edge
    page.focus("#search")
    page.wait_for_selector("#card", state="hidden")
    point_at(page, index)
    page.mouse.down()
    page.mouse.up()
    page.wait_for_selector("#chosen:not([hidden])")
    page.wait_for_selector("#card", state="hidden")


def test_a_click_shows_the_seven_nearest(page: Any, data: ExploreData) -> None:
    index = lonely(page)
    page.mouse.click(*point_at(page, index))
    page.wait_for_selector("#chosen ol li")
    expected, distances = brute_force(data.features, index)
    assert page.inner_text("#chosen > .name") == data.names[index]
    assert page.evaluate("scrollY") == 0
    names = page.locator("#chosen ol .name").all_inner_texts()
    assert names == [data.names[row] for row in expected]
    shown = [float(text) for text in page.locator("#chosen ol .distance").all_inner_texts()]
    assert shown == pytest.approx(distances, abs=6e-5)
    page.locator("#chosen ol button").nth(2).click()
    assert page.inner_text("#chosen > .name") == data.names[expected[2]]


def edge_distance(at: np.ndarray, corners: np.ndarray) -> float:
    """Pixels from the nearest dot to the edge of a polygon."""
    starts, along = corners, np.roll(corners, -1, axis=0) - corners
    offset = at[:, np.newaxis] - starts
    share = np.clip((offset * along).sum(axis=2) / (along**2).sum(axis=1), 0, 1)
    return float(np.linalg.norm(offset - share[..., np.newaxis] * along, axis=2).min())


def polygon_among(at: np.ndarray) -> np.ndarray:
    """A hexagon with dots inside and outside, and none near its edge."""
    angles = np.linspace(0, 2 * np.pi, 7)[:-1]
    rng = np.random.default_rng(0)
    for _ in range(2000):
        center, radius = at[rng.integers(len(at))], rng.uniform(60, 160)
        corners = center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        inside = Polygon(corners).contains_points(at).sum()
        if edge_distance(at, corners) > 4 and 5 < inside < len(at) - 5:
            return corners
    raise AssertionError("no such polygon")


def widest_gap(values: np.ndarray) -> float:
    """The middle of the widest gap among the larger half of numbers."""
    middle = np.sort(values)[6 * len(values) // 10 : 9 * len(values) // 10]
    place = int(np.diff(middle).argmax())
    return float(middle[place : place + 2].mean())


def drag(page: Any, way: np.ndarray) -> None:
    page.mouse.move(*way[0])
    page.mouse.down()
    for corner in way[1:]:
        page.mouse.move(*corner, steps=8)
    page.mouse.up()
    page.wait_for_selector("#selection:not([hidden])")


def draw_lasso(page: Any) -> list[int]:
    """Selects some images; their indices."""
    page.click("[data-title='Lasso Select']")
    at = places(page)
    corners = polygon_among(at)
    drag(page, np.concatenate([corners, corners[:1]]))
    return np.flatnonzero(Polygon(corners).contains_points(at)).tolist()


def saved(page: Any) -> list[list[str]]:
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "selection.csv"
    header, rows = read_written(download.value.path())
    return [header, *rows]


def table(data: ExploreData, rows: list[int]) -> list[list[str]]:
    head = ["path", *data.columns]
    return [head] + [[data.names[i], *(c[i] for c in data.columns.values())] for i in rows]


def test_a_lasso_saves_exactly_what_is_in_it(page: Any, data: ExploreData) -> None:
    inside = draw_lasso(page)
    assert saved(page) == table(data, inside)


def test_cells_are_written_as_in_python(page: Any) -> None:
    texts = [
        "a", "", "-0.5", "+1e-05", "inf", "=1+1", "'=1", "-x", "@a", "a=b", "\t=1", " =1",
        "\uff1d1",
        'say "x"', "a;b", "a,b", "two\nlines", "\rx", "'", "''=",
    ]  # fmt: skip
    written = page.evaluate("texts => texts.map((text) => `${csvCell(text)},x\\n`)", texts)
    assert written == [csv_line([text, "x"]) for text in texts]


def test_a_selection_is_a_manifest(browser: Any, tmp_path: Path) -> None:
    root = tmp_path / "images"
    data = make_data(6)
    data = dataclasses.replace(
        data,
        places={
            "path": [f"{i % 2}.png" for i in range(6)],
            "tile": [f"{i},0,8,8" for i in range(6)],
        },
        root=str(root),
        columns={"label": ["=a"] * 6},
    )
    root.mkdir()
    for name in "01":
        (root / f"{name}.png").touch()
    with opened(browser, write_explore_page(tmp_path / "page", data, ("pca",))) as seen:
        seen.page.wait_for_selector("html[data-ready=yes]")
        text = seen.page.evaluate("() => csvOf([1, 2])")
    (tmp_path / "selection.csv").write_text(text)
    manifest = Manifest.load(tmp_path / "selection.csv")
    assert manifest.files() == [str(root / "1.png"), str(root / "0.png")]
    assert [record.tile for record in manifest.records] == ["1,0,8,8", "2,0,8,8"]
    assert manifest.class_names == ("=a",)


def test_a_box_saves_what_is_in_it_and_the_filter_lets_through(
    page: Any, data: ExploreData
) -> None:
    page.select_option("#filter-column", label="split")
    page.get_by_label("test (24)").uncheck()
    page.click("[data-title='Box Select']")
    at = places(page)
    first, last = at.min(axis=0) - 9, np.array([widest_gap(at[:, 0]), widest_gap(at[:, 1])])
    drag(page, np.stack([first, last]))
    kept = np.array(data.columns["split"]) != "test"
    inside = (at > first).all(axis=1) & (at < last).all(axis=1)
    rows = np.flatnonzero(inside & kept).tolist()
    assert 3 < len(rows) < inside.sum()
    assert saved(page) == table(data, rows)


def test_selected_dots_stay_so_in_other_colors_and_filters(page: Any, data: ExploreData) -> None:
    inside = draw_lasso(page)
    for color in ("cluster", "depth, m", "nothing", "label"):
        page.select_option("#colour", label=color)
        assert sorted(page.evaluate(_HIGHLIGHTED)) == inside
    page.select_option("#filter-column", label="split")
    page.get_by_label("test (24)").uncheck()
    kept = [i for i in inside if data.columns["split"][i] != "test"]
    assert sorted(page.evaluate(_HIGHLIGHTED)) == kept
    page.get_by_role("button", name="None").click()
    assert plotted(page) == []
    page.get_by_role("button", name="All", exact=True).click()
    assert plotted(page) == list(range(60))
    assert page.evaluate(_HIGHLIGHTED) == []


def test_the_filter_hides_dots(page: Any, data: ExploreData) -> None:
    assert plotted(page) == list(range(60))
    index = next(i for i in range(60) if data.columns["label"][i] == "dots")
    page.get_by_label("dots (20)").uncheck()
    kept = [i for i, label in enumerate(data.columns["label"]) if label != "dots"]
    assert plotted(page) == kept
    assert "40 of 60 images shown, by label" in page.inner_text("#shown")
    page.select_option("#filter-column", label="split")
    page.get_by_label("not known").uncheck()
    kept = [i for i in kept if data.columns["split"][i]]
    assert plotted(page) == kept
    page.fill("#search", data.names[index])
    assert "1 hidden by the filter" in page.inner_text("#found-count")
    page.click("#show-all")
    assert plotted(page) == list(range(60))


def test_the_filter_takes_a_range_of_numbers(page: Any, data: ExploreData) -> None:
    page.select_option("#filter-column", label="depth, m")
    page.get_by_label("from").fill("2.5")
    page.get_by_label("from").press("Enter")
    page.get_by_label("to").fill("6")
    page.get_by_label("to").press("Enter")
    depths = [float(text) for text in data.columns["depth, m"]]
    assert plotted(page) == [i for i, depth in enumerate(depths) if 2.5 <= depth <= 6]


def legend(page: Any) -> dict[str, int]:
    entries = page.locator("#legend > span").all_inner_texts()
    return {title: int(number) for title, number in (text.rsplit(None, 1) for text in entries)}


def test_color_changes_the_legend(page: Any, data: ExploreData) -> None:
    assert legend(page) == Counter(data.columns["label"])
    page.select_option("#colour", label="split")
    counts = Counter(value or "not known" for value in data.columns["split"])
    assert legend(page) == counts
    page.select_option("#colour", label="cluster")
    groups = legend(page)
    assert len(groups) == 20
    assert groups["6 others"] == 12
    assert sum(groups.values()) == 60
    styles = page.evaluate("() => state.groups.groups.map(g => g.colour + g.symbol)")
    assert len(set(styles)) == len(styles)
    page.select_option("#colour", label="depth, m")
    depths = sorted(data.columns["depth, m"], key=float)
    ends = page.inner_text("#legend").split()
    assert ends == [depths[0], depths[-1], "60"]
    low, high = float(depths[0]), float(depths[-1])
    for index, color in zip(*page.evaluate(_COLORS), strict=True):
        share = (float(data.columns["depth, m"][index]) - low) / (high - low)
        expected = to_rgb(colormaps["cividis"](round(share * 63) / 63))
        assert to_rgb(color) == pytest.approx(expected, abs=3 / 255)


def test_no_group_is_drawn_above_the_others(page: Any, data: ExploreData) -> None:
    indices, colors = page.evaluate(_COLORS)
    labels = [data.columns["label"][index] for index in indices]
    assert len(set(zip(labels, colors, strict=True))) == 3
    assert len(set(labels[-20:])) == len(set(labels[:20])) == 3


def test_symbols_take_turns_and_each_is_drawn_once(page: Any, data: ExploreData) -> None:
    page.select_option("#colour", label="cluster")
    layers = page.evaluate(
        "() => plot.data.filter(t => t.name === 'images').map(t => [t.marker.symbol, t.customdata])"
    )
    symbols = [symbol for symbol, _ in layers]
    assert all(isinstance(symbol, str) for symbol in symbols)
    kinds = len(set(symbols))
    assert kinds > 2
    assert symbols == symbols[:kinds] * 4
    dots = [index for _, indices in layers for index in indices]
    assert sorted(dots) == list(range(60))
    lengths = [len(indices) for _, indices in layers]
    assert [sum(lengths[kinds * i : kinds * (i + 1)]) for i in range(4)] == [15] * 4


def test_dots_are_drawn_once_for_each_pixel_of_the_screen(page: Any) -> None:
    drawn = page.evaluate(
        """() => [...document.querySelectorAll(".gl-canvas-context, .gl-canvas-focus")].map(
          (canvas) => [
            canvas.width / canvas.clientWidth,
            canvas.getContext("webgl").getContextAttributes().antialias,
          ])"""
    )
    assert drawn == [[1, False]] * 2


def rings(page: Any, name: str) -> list[list[float]]:
    script = "name => { const t = plot.data.find(t => t.name === name); return [t.x, t.y]; }"
    return page.evaluate(script, name)


def test_a_search_marks_and_lists(page: Any, data: ExploreData) -> None:
    page.fill("#search", "IMAGE_01")
    found = [i for i, name in enumerate(data.names) if "image_01" in name]
    assert len(found) == 10
    assert page.locator("#found-list .name").all_inner_texts() == [data.names[i] for i in found]
    points = np.array(page.evaluate("() => [...data.projections[0].points]")).reshape(-1, 2)
    assert pytest.approx(points[found]) == np.array(rings(page, "found")).T
    page.locator("#found-list button").nth(3).click()
    assert page.inner_text("#chosen > .name") == data.names[found[3]]
    assert pytest.approx(points[found[3:4]]) == np.array(rings(page, "chosen")).T
    near = brute_force(data.features, found[3])[0]
    assert pytest.approx(points[near]) == np.array(rings(page, "near")).T


def test_accents_are_found_however_they_are_spelt(page: Any, data: ExploreData) -> None:
    page.fill("#search", "gro\u0308ße")
    assert page.locator("#found-list .name").all_inner_texts() == [NASTY[3]]


def test_escape_clears_marks_and_selection(page: Any) -> None:
    draw_lasso(page)
    page.fill("#search", "checks")
    page.locator("#found-list button").first.click()
    page.keyboard.press("Escape")
    for panel in ("#selection", "#found", "#chosen", "#card"):
        assert page.locator(panel).is_hidden()
    assert [rings(page, name) for name in ("found", "near", "chosen")] == [[[], []]] * 3
    assert page.evaluate("() => plot.data.every(trace => !trace.selectedpoints)")
    assert page.evaluate("() => (plot.layout.selections ?? []).length") == 0
    assert page.input_value("#search") == ""


def test_the_menu_changes_the_projection(page: Any) -> None:
    before = places(page)
    page.select_option("#projection", label="Random projection")
    assert np.abs(places(page) - before).max() > 20
    assert "random directions" in page.inner_text("#projection-note")


def test_names_stay_text(page: Any, data: ExploreData) -> None:
    assert page.title() == data.title
    assert page.inner_text("h1") == data.title
    page.fill("#search", ".png")
    names = page.locator("#found-list .name").all_inner_texts()
    assert names == data.names
    assert page.locator("img").count() == 0
    assert "a <b>test</b>" in page.inner_text("footer")


def test_the_data_are_not_offered_for_upload(page: Any) -> None:
    titles = page.evaluate(
        "() => [...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)"
    )
    assert "Lasso Select" in titles
    assert not [title for title in titles if "share" in title.lower() or "cloud" in title.lower()]


@pytest.mark.parametrize("count", [1, 2])
def test_hardly_any_images_without_columns(browser: Any, tmp_path: Path, count: int) -> None:
    data = dataclasses.replace(make_data(count), columns={}, facts={})
    with opened(browser, write_explore_page(tmp_path, data)) as seen:
        seen.page.wait_for_selector("html[data-ready=yes]")
        assert legend(seen.page) == {"all images": count}
        assert seen.page.locator("#filter").is_hidden()
        assert seen.page.locator("#projection option").all_inner_texts() == [
            "PCA",
            "Random projection",
        ]
        assert "t-SNE is left out" in seen.page.inner_text(".summary")
        seen.page.mouse.click(*places(seen.page)[0])
        seen.page.wait_for_selector("#chosen:not([hidden])")
        assert seen.page.locator("#chosen ol li").count() == count - 1
        seen.check_quiet()


@pytest.mark.parametrize("width", [1200, 390])
def test_texts_do_not_overlap(
    browser: Any,
    written: tuple[Path, ExploreData],
    width: int,
) -> None:
    with opened(browser, written[0], width) as seen:
        seen.page.wait_for_selector("html[data-ready=yes]")
        seen.page.select_option("#colour", label="cluster")
        seen.page.evaluate("() => choose(0)")
        assert seen.page.evaluate(f"() => {{ {OVERLAPS} return overlaps(document); }}") == []
        wide = seen.page.evaluate("() => document.documentElement.scrollWidth")
        assert wide == width
        seen.check_quiet()
