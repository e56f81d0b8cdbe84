import numpy as np
import pytest

from simclr_tf.evaluation.figures import to_png
from simclr_tf.evaluation.intervals import Interval
from simclr_tf.sweeps.figures import SettingPoint, embedding_panels, setting_points

NAMES = ("a", "b", "c")


@pytest.mark.parametrize("number", [1, 2, 5])
def test_every_image_is_drawn_once_in_every_panel(number: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0, 1, 2, -1] * 5)
    panels = {
        f"method=m{i}, color_jitter_strength=0.5": rng.normal(size=(20, 2)) for i in range(number)
    }
    figure = embedding_panels(panels, labels, NAMES)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == number
    for axes, points in zip(shown, panels.values(), strict=True):
        drawn = np.concatenate([np.asarray(c.get_offsets()) for c in axes.collections])
        np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(points, axis=0))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["no label", *NAMES]
    assert to_png(figure) == to_png(embedding_panels(panels, labels, NAMES))


def test_titles_of_neighboring_panels_do_not_overlap() -> None:
    names = [
        f"method=barlow_twins, color_jitter_strength=0.5, image_size=12{i}, seed=1"
        for i in range(6)
    ]
    panels = {name: np.random.default_rng(0).normal(size=(9, 2)) for name in names}
    figure = embedding_panels(panels, np.arange(9) % 3, NAMES)
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    for i, a in enumerate(boxes):
        assert a.x0 >= 0
        assert a.x1 <= figure.bbox.x1
        for b in boxes[i + 1 :]:
            assert not a.overlaps(b)


def test_settings_are_rows_with_interval_and_seeds() -> None:
    results = {
        "method=byol": SettingPoint(Interval(0.5, 0.4, 0.6), (0.45, 0.55)),
        "untrained": SettingPoint(Interval(0.3, 0.2, 0.4), (0.3,), floor=True),
    }
    figure = setting_points(results, chance=1 / 3)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(results)
    dots = [c for c in axes.collections if len(c.get_offsets()) == 2 and c.get_sizes().size]
    np.testing.assert_allclose(np.asarray(dots[-1].get_offsets())[:, 0], [0.45, 0.55])
    bars = [segment for c in axes.collections for segment in getattr(c, "get_segments", list)()]
    assert any(np.allclose(np.asarray(bar)[:, 0], [0.4, 0.6]) for bar in bars)
