import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import UserError
from simclr_tf.evaluation.neighbors import nearest_neighbors
from simclr_tf.explore.compare import diverse_images, shared_neighbors, write_comparison
from simclr_tf.explore.data import ExploreData
from tests.chromium import look_at
from tests.simclr_tf.explore.common import NASTY, make_data


class Strips(HTMLParser):
    """The tiles of the page: for every pinned image and run, (name, caption, class)."""

    def __init__(self) -> None:
        super().__init__()
        self.strips: list[list[tuple[str, str, str]]] = []
        self._kind = ""

    def handle_starttag(self, tag: str, attrs: list) -> None:
        found = dict(attrs)
        if tag == "div" and found.get("class") == "strip":
            self.strips.append([])
        if tag == "figure" and self.strips:
            self._kind = found["class"]
        if tag == "img" and self.strips:
            self.strips[-1].append((found["alt"], "", self._kind))

    def handle_data(self, data: str) -> None:
        if self.lasttag == "figcaption" and self.strips and data.strip():
            name, _, kind = self.strips[-1][-1]
            self.strips[-1][-1] = (name, data.strip(), kind)


def other_run(data: ExploreData, title: str, seed: int, noise: float = 1.0) -> ExploreData:
    """The same images in another order, with other features."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(data))
    features = (data.features + noise * rng.normal(size=data.features.shape))[order]
    return ExploreData(
        title,
        [data.names[i] for i in order],
        [data.thumbnails[i] for i in order],
        features.astype(np.float32),
        {},
        {"seed": str(seed)},
    )


def read(path: Path) -> list[list[tuple[str, str, str]]]:
    reader = Strips()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.strips


def named_neighbors(run: ExploreData, name: str) -> dict[str, float]:
    indices, distances = nearest_neighbors(run.features, 7)
    row = run.names.index(name)
    return {run.names[i]: d for i, d in zip(indices[row], distances[row], strict=True)}


def test_pinned_images_and_their_neighbors_stand_side_by_side(tmp_path: Path) -> None:
    first = make_data(30, "SimCLR")
    runs = [first, other_run(first, "MoCo <2>", 1)]
    pinned = [NASTY[1], first.names[17]]
    page = write_comparison(tmp_path, runs, pinned)
    strips = read(page)
    assert len(strips) == 4
    for place, strip in enumerate(strips):
        run, other = runs[place % 2], runs[1 - place % 2]
        name = pinned[place // 2]
        assert strip[0] == (name, "pinned", "pinned")
        near, elsewhere = named_neighbors(run, name), named_neighbors(other, name)
        assert [tile[0] for tile in strip[1:]] == list(near)
        for shown, distance, kind in strip[1:]:
            assert float(distance) == pytest.approx(near[shown], abs=6e-5)
            assert (kind == "shared") == (shown in elsewhere)
    html = page.read_text(encoding="utf-8")
    shared = [
        len(named_neighbors(runs[0], name).keys() & named_neighbors(runs[1], name).keys())
        for name in first.names
    ]
    cells = re.findall(r'<td class="number">([\d.]+)</td>', html)
    own = [str(shared[first.names.index(name)]) for name in pinned]
    assert cells == [f"{np.mean(shared):.2f}", *own]
    assert "MoCo &lt;2&gt;" in html
    assert f"would share {49 / 29:.2f} on average" in html


def test_shared_neighbors_are_counted_as_sets() -> None:
    rng = np.random.default_rng(0)
    a, b = (np.stack([rng.permutation(20)[:7] for _ in range(9)]) for _ in range(2))
    expected = [len(set(x) & set(y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert shared_neighbors(a, b).tolist() == expected
    assert shared_neighbors(a, a[:, ::-1]).tolist() == [7] * 9


def test_only_common_images_take_part(tmp_path: Path) -> None:
    first = make_data(30, "all")
    part = ExploreData("part", first.names[10:], first.thumbnails[10:], first.features[10:], {}, {})
    page = write_comparison(tmp_path, [first, part], [])
    strips = read(page)
    assert {name for strip in strips for name, _, _ in strip} <= set(part.names)
    for own, same in zip(strips[::2], strips[1::2], strict=True):
        assert own == same
    assert "all has 10 more" in page.read_text(encoding="utf-8")


def test_images_are_chosen_from_every_heap_with_a_seed() -> None:
    data = make_data(60)
    chosen = diverse_images([data.features], 3, seed=4)
    assert {index % 3 for index in chosen} == {0, 1, 2}
    assert chosen == diverse_images([data.features], 3, seed=4)
    same = np.ones((5, 4), np.float32)
    assert len(diverse_images([same], 6)) == 1


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    data = make_data(12, "one")
    with pytest.raises(UserError, match="two runs or more"):
        write_comparison(tmp_path / "x", [data], [])
    with pytest.raises(UserError, match=r"called dots/image_10\.png; similar names: .*image_010"):
        write_comparison(tmp_path / "x", [data, data], ["dots/image_10.png"])
    others = dataclasses.replace(data, names=[f"other {i}" for i in range(12)])
    with pytest.raises(UserError, match="no image in common"):
        write_comparison(tmp_path / "x", [data, others], [])
    twice = dataclasses.replace(data, names=["same", "same", *data.names[2:]], title="two")
    with pytest.raises(UserError, match="two: two images are called same"):
        write_comparison(tmp_path / "x", [data, twice], [])
    assert not (tmp_path / "x").exists()


def test_the_page_reads_well_on_wide_and_narrow_screens(tmp_path: Path) -> None:
    first = make_data(30, "SimCLR")
    page = write_comparison(tmp_path, [first, other_run(first, "MoCo", 1)], [], seed=1)
    for seen in look_at(page, tmp_path):
        assert seen["overlaps"] == []
        assert seen["content"] == seen["width"]
        assert all(dots > 0 for dots, _, _ in seen["images"])
        assert seen["console"] == []
        assert seen["scripts"] == 0
