import base64
import io
import itertools
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from simclr_tf.evaluation import classifier_figures, curves, figures
from simclr_tf.evaluation.figures import line_style, plain, point_style, single_axes
from simclr_tf.evaluation.intervals import Interval

LONG_NAMES = [f"tetragonal_face_bcc_number_{index}" for index in range(13)]


def make(name: str) -> Figure:
    rng = np.random.default_rng(0)
    if name == "loss_curves":
        curve = (range(200), 9 * np.exp(-np.arange(200) / 80) + 2)
        return figures.loss_curves({"contrastive": curve, "probe": curve}, chance=11, title="Loss")
    if name == "accuracy_over_time":
        return figures.accuracy_over_time({"k-NN": ([0, 9], [0.1, 0.7])}, chance=0.1)
    if name == "accuracy_bars":
        results = {
            f"method with a long name {i}": Interval(v, v - 0.05, min(v + 0.05, 1))
            for i, v in enumerate([0.05, 0.4, 0.7, 1.0])
        }
        return figures.accuracy_bars(results, chance=1 / 13, title="Test accuracy")
    if name == "view_sheet":
        views = rng.integers(0, 256, (8, 2, 16, 16, 1)).astype(np.uint8)
        return figures.view_sheet(views, rng.random((8, 20, 20, 3)), title="Views")
    if name == "embedding_map":
        labels = rng.integers(-1, 13, 300)
        return figures.embedding_map(rng.normal(size=(300, 2)), labels, LONG_NAMES, title="Map")
    kind, _, number = name.partition("_of_")
    return make_classifier_figure(kind, int(number))


def make_classifier_figure(kind: str, classes: int) -> Figure:
    rng = np.random.default_rng(0)
    names = [f"tetragonal_face_bcc_number_{index}" for index in range(classes)]
    if kind == "confusion":
        matrix = rng.integers(0, 9, (classes, classes)) + 300 * np.eye(classes, dtype=int)
        return classifier_figures.confusion_figure(matrix, names, title="Confusion")
    labels = np.arange(200) % classes
    p = rng.dirichlet(np.full(classes, 0.5), 200) + 0.2 * np.eye(classes)[labels]
    p /= p.sum(axis=1, keepdims=True)
    areas = dict(zip(names, rng.random(classes), strict=True))
    if kind == "calibration":
        return classifier_figures.calibration_figure(curves.calibration_curve(labels, p))
    of = curves.roc_curve if kind == "roc" else curves.precision_recall_curve
    draw = getattr(classifier_figures, f"{kind}_figure")
    return draw({n: of(labels == k, p[:, k]) for k, n in enumerate(names)}, areas)


CLASSIFIER = [
    f"{kind}_of_{classes}"
    for kind in ("confusion", "roc", "precision_recall", "calibration")
    for classes in (2, 13, 40)
]
ALL = [
    "loss_curves",
    "accuracy_over_time",
    "accuracy_bars",
    "view_sheet",
    "embedding_map",
    *CLASSIFIER,
]


@pytest.mark.parametrize("name", ALL)
def test_labels_do_not_overlap_nor_leave_the_figure(name: str) -> None:
    figure = make(name)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    boxes = [text.get_window_extent(renderer) for text in texts]
    assert texts
    width, height = figure.get_size_inches() * figure.dpi
    ticks_outside = {
        id(tick.label1)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    shown = [
        (text, box) for text, box in zip(texts, boxes, strict=True) if id(text) not in ticks_outside
    ]
    for text, box in shown:
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y1 <= height + 1, text
    for (one, a), (other, b) in itertools.combinations(shown, 2):
        assert not (a.x0 + 1 < b.x1 and b.x0 + 1 < a.x1 and a.y0 + 1 < b.y1 and b.y0 + 1 < a.y1), (
            one,
            other,
        )


@pytest.mark.parametrize("name", [name for name in ALL if not name.endswith(("_2", "_40"))])
def test_png_is_an_image_and_repeatable(name: str) -> None:
    png = figures.to_png(make(name), dpi=60)
    assert png == figures.to_png(make(name), dpi=60)
    with Image.open(io.BytesIO(base64.b64decode(figures.to_png_base64(make(name), 60)))) as image:
        assert image.format == "PNG"
        assert np.asarray(image.convert("L")).std() > 5


def test_no_pyplot_state() -> None:
    before = "matplotlib.pyplot" in sys.modules
    make("accuracy_bars")
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_gaps_are_left_where_a_loss_is_not_finite() -> None:
    figure = figures.loss_curves({"loss": ([1, 2, 3], [1.0, np.nan, 2.0])})
    (line,) = figure.axes[0].get_lines()
    np.testing.assert_array_equal(line.get_ydata(), [1.0, np.nan, 2.0])


def test_bars_and_their_ends_are_the_numbers_given() -> None:
    figure = make("accuracy_bars")
    axes = figure.axes[0]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [0.05, 0.4, 0.7, 1.0])
    assert {"5.0%", "100.0%"} <= {text.get_text() for text in axes.texts}


def test_every_class_has_its_own_mark() -> None:
    marks = {tuple(point_style(index).items()) for index in range(50)}
    assert len(marks) == 50


def test_one_channel_uint8_and_floats_are_shown_alike() -> None:
    gray = np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 17
    np.testing.assert_allclose(figures._showable(gray), figures._showable(gray / 255.0))
    assert figures._showable(np.zeros((4, 4, 3))).shape == (4, 4, 3)
    assert figures._showable(np.zeros((4, 4, 5))).shape == (4, 4)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_projection_keeps_clusters_apart(method: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 40)
    centers = 10 * rng.normal(size=(3, 20))
    features = centers[labels] + rng.normal(size=(120, 20))
    points = figures.project_2d(features, method, seed=1)
    assert points.shape == (120, 2)
    np.testing.assert_array_equal(points, figures.project_2d(features, method, seed=1))
    means = np.array([points[labels == k].mean(axis=0) for k in range(3)])
    nearest = np.linalg.norm(points[:, None] - means, axis=-1).argmin(axis=1)
    np.testing.assert_array_equal(nearest, labels)


def test_curves_of_many_classes_name_the_worst() -> None:
    figure = make_classifier_figure("roc", 40)
    names = [text.get_text() for text in figure.legends[0].texts]
    assert len(names) == 9
    assert names[0] == "the other 32 classes"
    shown = [float(name.split()[-1]) for name in names[1:]]
    assert shown == sorted(shown)


def test_names_are_drawn_as_they_stand() -> None:
    assert plain("a$b$") == r"a\$b\$"
    assert plain("two\nlines") == "two lines"
    assert plain("x" * 30 + "end", 11) == "xxxxx…xxend"
    _, axes = single_axes(2.0)
    axes.plot([0, 1], [0, 1], label=plain("_hidden$x"))
    axes.legend()
    assert [t.get_text() for t in axes.get_legend().texts] == ["\u200b_hidden\\$x"]


def test_names_in_scripts_that_the_font_lacks_do_no_harm() -> None:
    matrix = np.eye(2, dtype=int)
    assert figures.to_png(classifier_figures.confusion_figure(matrix, ["岩石", "氷"]), dpi=40)


def test_every_curve_has_its_own_line() -> None:
    assert len({tuple(line_style(index).items()) for index in range(32)}) == 32
