import dataclasses
import itertools

import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.synthetic.lattice import (
    Crystal,
    LatticeParameters,
    atom_columns,
    draw_crystal,
    image_generator,
    lattice_image,
    render,
    to_gray,
)
from data_prep.synthetic.lattice_classes import LATTICE_CLASSES

THE_THIRTEEN = {
    "cubic_bcc",
    "cubic_bcc_2atom",
    "hexagon",
    "hexagon_2atom",
    "ortho_body_centered",
    "ortho_face_centered",
    "tetragonal_body_center",
    "tetragonal_c",
    "tetragonal_face",
    "tetragonal_face_bcc",
    "tetragonal_face_bcc_2atom",
    "tetragonal_reg_2atom",
    "triclinic_rhomboh",
}
every_class = pytest.mark.parametrize("name", sorted(THE_THIRTEEN))


def crystal(name: str, index: int = 0, size: int = 256, **changes: float) -> Crystal:
    rng = image_generator(5, name, index)
    drawn = draw_crystal(LATTICE_CLASSES[name], size, LatticeParameters(rotation=180.0), rng)
    return dataclasses.replace(drawn, **changes)


def nearest_distances(points: np.ndarray, count: int) -> np.ndarray:
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return np.sort(gaps, axis=1)[:, 1 : count + 1]


def test_all_classes_of_the_original_are_there() -> None:
    assert set(LATTICE_CLASSES) == THE_THIRTEEN
    two = {name for name, lattice in LATTICE_CLASSES.items() if lattice.num_species == 2}
    assert two == {name for name in THE_THIRTEEN if name.endswith("_2atom")}


@every_class
def test_an_image_depends_only_on_seed_class_and_index(name: str) -> None:
    first, drawn = lattice_image(name, 3, seed=1, image_size=32)
    for other in range(5):
        lattice_image(name, other, seed=1, image_size=32)
    again, drawn_again = lattice_image(name, 3, seed=1, image_size=32)
    np.testing.assert_array_equal(first, again)
    assert drawn == drawn_again
    assert first.dtype == np.uint8
    assert first.shape == (32, 32)
    for changed in (
        lattice_image(name, 4, seed=1, image_size=32)[0],
        lattice_image(name, 3, seed=2, image_size=32)[0],
    ):
        assert (first != changed).mean() > 0.5


@every_class
def test_columns_have_the_same_density_in_every_class(name: str) -> None:
    drawn = crystal(name, size=1000, spacing=25.0)
    positions, _ = atom_columns(drawn, 1000)
    inside = ((positions > -0.5) & (positions < 999.5)).all(axis=1).sum()
    assert inside == pytest.approx((1000 / 25) ** 2, rel=0.02)


@every_class
def test_cell_has_the_documented_shape(name: str) -> None:
    for index in range(20):
        drawn = crystal(name, index)
        a, b = drawn.cell()
        lattice = LATTICE_CLASSES[name]
        ratio = np.linalg.norm(b) / np.linalg.norm(a)
        angle = np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
        assert lattice.ratio[0] - 1e-9 <= ratio <= lattice.ratio[1] + 1e-9
        assert lattice.angle[0] - 1e-9 <= angle <= lattice.angle[1] + 1e-9
        assert abs(np.cross([*a, 0], [*b, 0])[2]) == pytest.approx(
            len(lattice.sites) * drawn.spacing**2
        )


# Nearest-neighbour distances in units of |a|, worked out by hand from the patterns' description.
NEAREST = {
    "cubic_bcc": lambda r: [0.5**0.5] * 4 + [1] * 4,
    "cubic_bcc_2atom": lambda r: [0.5**0.5] * 4 + [1] * 4,
    "hexagon": lambda r: [3**-0.5] * 3 + [1] * 6,
    "hexagon_2atom": lambda r: [3**-0.5] * 3 + [1] * 6,
    "ortho_body_centered": lambda r: [(1 + r * r) ** 0.5 / 2] * 4 + [1] * 2,
    "ortho_face_centered": lambda r: [0.5] * 2 + [r / 2] * 2,
    "tetragonal_body_center": lambda r: [1] * 2 + [(1 + r * r) ** 0.5 / 2] * 4,
    "tetragonal_c": lambda r: [0.5] * 2 + [min(r, 1)] * 2,
    "tetragonal_reg_2atom": lambda r: [(1 + r * r) ** 0.5 / 2] * 4 + [1] * 2,
    "triclinic_rhomboh": lambda r: [1] * 2 + [r] * 2,
    "tetragonal_face_bcc": lambda r: [r / 4],
    "tetragonal_face_bcc_2atom": lambda r: [r / 4],
}


@pytest.mark.parametrize("name", sorted(NEAREST))
def test_nearest_neighbors_in_the_picture_are_the_documented_ones(name: str) -> None:
    size = 400
    drawn = crystal(name, size=size, spacing=40.0, atom_size=4.0, contrast=0.7)
    drawn = dataclasses.replace(drawn, displacement_x=0.0, displacement_y=0.0)
    image = render(drawn, size, None)
    # Atoms are found as maxima of the picture, refined by its centre of mass nearby.
    inner = image[1:-1, 1:-1]
    around = [
        image[1 + dy : size - 1 + dy, 1 + dx : size - 1 + dx]
        for dy, dx in itertools.product((-1, 0, 1), repeat=2)
        if (dy, dx) != (0, 0)
    ]
    ys, xs = np.nonzero((inner > np.max(around, axis=0)) & (inner > 0.3))
    found = np.stack([xs + 1.0, ys + 1.0], axis=1)
    center = found[np.argmin(np.linalg.norm(found - size / 2, axis=1))]
    gaps = np.sort(np.linalg.norm(found - center, axis=1))[1:]
    expected = np.array(NEAREST[name](drawn.ratio)) * np.linalg.norm(drawn.cell()[0])
    np.testing.assert_allclose(gaps[: len(expected)], np.sort(expected), atol=1.6)


@every_class
def test_fourier_peaks_lie_on_the_reciprocal_lattice(name: str) -> None:
    size = 256
    drawn = crystal(name, size=size, atom_size=4.0)
    image = render(drawn, size, None)
    window = np.hanning(size)
    power = np.abs(np.fft.fft2((image - image.mean()) * np.outer(window, window)))
    reciprocal = np.linalg.inv(drawn.cell()).T * size  # rows: a*, b* in bins, as (x, y)
    for _ in range(6):
        row, column = np.unravel_index(power.argmax(), power.shape)
        peak = (np.array([column, row]) + size / 2) % size - size / 2
        order = np.linalg.solve(reciprocal.T, peak)
        miss = (order - np.rint(order)) @ reciprocal
        assert np.linalg.norm(miss) < 1.0, (name, order)
        for sign in (1, -1):
            near = np.arange(-3, 4)
            rows, columns = (int(sign * peak[1]) + near) % size, (int(sign * peak[0]) + near) % size
            power[np.ix_(rows, columns)] = 0


def _fourier_amplitude(drawn: Crystal, h: int, k: int) -> float:
    """Amplitude of reflection (h, k), relative to the mean."""
    size = 256
    image = render(drawn, size, None)
    window = np.outer(np.hanning(size), np.hanning(size))
    wave = np.linalg.inv(drawn.cell()) @ np.array([h, k])
    y, x = np.mgrid[:size, :size]
    phase = np.exp(-2j * np.pi * (x * wave[0] + y * wave[1]))
    return float(abs((image * window * phase).sum()) / (image * window).sum())


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("cubic_bcc", "cubic_bcc_2atom"),
        ("ortho_body_centered", "tetragonal_reg_2atom"),
    ],
)
def test_centring_extinguishes_odd_reflections_but_not_with_two_elements(
    one: str, two: str
) -> None:
    assert _fourier_amplitude(crystal(one, atom_size=4.0), 1, 0) < 0.01
    assert _fourier_amplitude(crystal(two, atom_size=4.0, contrast=0.5), 1, 0) > 0.1


def _signature(drawn: Crystal) -> np.ndarray:
    """Scale-, rotation- and mirror-free description of the ideal pattern."""
    positions, species = atom_columns(drawn, 256)
    heights = np.where(species == 1, drawn.contrast, 1.0)
    gaps = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    inner = np.nonzero((np.abs(positions - 127.5) < 64).all(axis=1))[0]
    order = np.argsort(gaps[inner], axis=1)[:, 1:9]
    distances = np.take_along_axis(gaps[inner], order, axis=1) / drawn.spacing
    contrast = heights[order].mean(axis=1) / heights[inner]
    return np.concatenate(
        [distances.mean(axis=0), distances.std(axis=0), [contrast.std(), heights.std()]]
    )


def test_no_two_classes_share_a_pattern() -> None:
    names, signatures = [], []
    for name in LATTICE_CLASSES:
        for index in range(40):
            drawn = crystal(name, index)
            names.append(name)
            signatures.append(_signature(drawn))
    features, labels = np.array(signatures), np.array(names)
    gaps = np.linalg.norm(features[:, None] - features[None], axis=-1)
    np.fill_diagonal(gaps, np.inf)
    assert (labels[gaps.argmin(axis=1)] == labels).all()
    # The nearest pattern of another class is well away, measured in units of the spacing.
    assert np.where(labels[:, None] == labels[None], np.inf, gaps).min() > 0.08


def test_render_equals_the_sum_of_gaussians_in_distorted_rows() -> None:
    size = 40
    drawn = crystal("hexagon_2atom", size=size, jitter=0.0, noise=0.0, scan_distortion=1.5)
    image = render(drawn, size, np.random.default_rng(0))
    positions, species = atom_columns(drawn, size)
    rng = np.random.default_rng(0)
    rng.normal(0, 0.0, positions.shape)
    shifts = rng.normal(0, 1.5, size)
    expected = np.zeros((size, size))
    for (x0, y0), kind in zip(positions, species, strict=True):
        height = drawn.contrast if kind else 1.0
        for y in range(size):
            x = np.arange(size) - shifts[y]
            distance2 = (x - x0) ** 2 + (y - y0) ** 2
            expected[y] += height * np.exp(-distance2 / (2 * drawn.atom_size**2))
    np.testing.assert_allclose(image, expected, atol=2e-3)
    assert np.abs(image - render(drawn, size, None)).max() > 0.2


def test_noise_and_jitter_have_the_given_strength() -> None:
    drawn = crystal("cubic_bcc", size=256, jitter=0.0, scan_distortion=0.0, noise=0.3)
    difference = render(drawn, 256, np.random.default_rng(1)) - render(drawn, 256, None)
    assert difference.std() == pytest.approx(0.3, rel=0.02)
    assert difference.mean() == pytest.approx(0, abs=0.01)
    shaken = dataclasses.replace(drawn, noise=0.0, jitter=1.0, atom_size=3.0, spacing=30.0)
    still = dataclasses.replace(shaken, jitter=0.0)
    rng = np.random.default_rng
    assert np.abs(render(shaken, 256, rng(1)) - render(still, 256, rng(1))).max() > 0.2


def test_drawn_values_cover_their_ranges() -> None:
    parameters = LatticeParameters(noise=(0.1, 0.4), rotation=30.0)
    drawn = [
        draw_crystal(LATTICE_CLASSES["hexagon_2atom"], 100, parameters, image_generator(0, "x", i))
        for i in range(300)
    ]
    noise = np.array([one.noise for one in drawn])
    assert 0.1 <= noise.min() < 0.12
    assert 0.38 < noise.max() <= 0.4
    turns = np.array([one.orientation for one in drawn])
    assert -30 <= turns.min() < -25
    assert 25 < turns.max() <= 30
    spacing = np.array([one.spacing for one in drawn])
    assert 15 <= spacing.min() < spacing.max() <= 21
    shifts = np.array([one.displacement_x / one.spacing for one in drawn])
    assert 0.04 < np.abs(shifts).max() <= 0.05


def test_gray_levels_use_the_whole_range() -> None:
    image, _ = lattice_image("hexagon", 0, seed=0, image_size=64)
    assert (image.min(), image.max()) == (0, 255)
    assert to_gray(np.full((4, 4), 2.0)).max() == 0  # a flat image is not blown up


@pytest.mark.parametrize(
    "changes",
    [
        {"noise": (0.4, 0.1)},
        {"noise": (-0.1, 0.1)},
        {"spacing": (0.0, 0.1)},
        {"contrast": (0.5, 1.5)},
        {"displacement": 0.9},
        {"rotation": 400.0},
    ],
)
def test_impossible_parameters_are_refused(changes: dict) -> None:
    with pytest.raises(UserError, match=f"^--{next(iter(changes))}="):
        LatticeParameters(**changes).validate()


def test_unknown_class_names_the_known() -> None:
    with pytest.raises(UserError, match="cubic_bcc_2atom"):
        lattice_image("cubic", 0, seed=0, image_size=32)
