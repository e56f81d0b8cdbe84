"""Errors of depth maps, against plain loops over pixels and windows."""

import math

import numpy as np
import pytest

from finetune.depth.metrics import (
    ImageErrors,
    MapSums,
    image_errors,
    join_errors,
    measure,
    structural_similarity,
)

LOW, HIGH = 100.0, 260.0


def maps(n: int = 6, height: int = 14, width: int = 13) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true maps, the errors of the last image much larger than the others'."""
    rng = np.random.default_rng(3)
    true = rng.uniform(120, 240, (n, height, width)).astype(np.float32)
    spread = np.linspace(1, 2, n)
    spread[-1] = 30
    predicted = true + rng.normal(1, spread[:, None, None], true.shape).astype(np.float32)
    return predicted, true


def slow_ssim(one: np.ndarray, other: np.ndarray, span: float) -> float:
    """Wang et al. 2004, equations 13 to 17, window by window."""
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    first, second = (0.01 * span) ** 2, (0.03 * span) ** 2
    found = []
    for top in range(one.shape[0] - 10):
        for left in range(one.shape[1] - 10):
            x = one[top : top + 11, left : left + 11].astype(np.float64)
            y = other[top : top + 11, left : left + 11].astype(np.float64)
            mx, my = (weights * x).sum(), (weights * y).sum()
            vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
            cov = (weights * (x - mx) * (y - my)).sum()
            numerator = (2 * mx * my + first) * (2 * cov + second)
            found.append(numerator / ((mx**2 + my**2 + first) * (vx + vy + second)))
    return float(np.mean(found))


def test_errors_of_a_set_are_those_of_a_loop_over_all_its_pixels() -> None:
    predicted, true = maps()
    parts = [image_errors(predicted[k], true[k], LOW, HIGH) for k in (slice(0, 4), slice(4, 6))]
    found = measure(join_errors(parts), 0.0, units=list("abcdef"), resamples=0)
    square = total = signed = 0.0
    for p, t in zip(predicted.ravel().tolist(), true.ravel().tolist(), strict=True):
        square, total, signed = square + (p - t) ** 2, total + abs(p - t), signed + p - t
    assert found.rmse.value == pytest.approx(math.sqrt(square / true.size), rel=1e-12)
    assert found.mae.value == pytest.approx(total / true.size, rel=1e-12)
    assert found.bias.value == pytest.approx(signed / true.size, rel=1e-6)
    # A mean over batches of their RMSE, which is often reported, is another number.
    batches = [float(np.sqrt(part.squared.mean())) for part in parts]
    assert abs(np.mean(batches) - found.rmse.value) > 0.5


def test_rmse_of_an_image_is_that_of_its_own_pixels() -> None:
    predicted, true = maps()
    errors = image_errors(predicted, true, LOW, HIGH)
    gaps = predicted.astype(float) - true
    expected = [np.linalg.norm(gap.ravel()) / math.sqrt(gap.size) for gap in gaps]
    np.testing.assert_allclose(errors.rmse, expected, rtol=1e-12)


def test_ssim_is_that_of_a_loop_over_windows() -> None:
    predicted, true = maps()
    found = structural_similarity(predicted, true, LOW, HIGH)
    expected = [slow_ssim(p - LOW, t - LOW, HIGH - LOW)
                for p, t in zip(predicted, true, strict=True)]  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert found[0] > 0.99 > found[-1]
    np.testing.assert_allclose(structural_similarity(true, true, LOW, HIGH), 1, atol=1e-6)


def test_maps_smaller_than_the_window_have_no_ssim_but_all_other_errors() -> None:
    predicted, true = maps(height=10)
    found = measure(image_errors(predicted, true, LOW, HIGH), 0.0, units=list("abcdef"))
    assert math.isnan(found.ssim.value)
    assert found.rmse.low <= found.rmse.value <= found.rmse.high


def test_the_best_constant_and_the_best_map_cannot_be_beaten_by_another() -> None:
    _, true = maps()
    sums = MapSums()
    for part in (true[:2], true[2:]):
        sums.add(part)
    errors = image_errors(np.full_like(true, 150), true, LOW, HIGH)
    found = measure(errors, sums.rmse, units=list("abcdef"), resamples=0)
    tried = [float(np.sqrt(((true.astype(float) - c) ** 2).mean())) for c in range(100, 261)]
    assert 0 < min(tried) - found.constant_rmse < 5e-3
    map_errors = image_errors(np.broadcast_to(true.mean(axis=0), true.shape), true, LOW, HIGH)
    assert found.map_rmse == pytest.approx(math.sqrt(map_errors.squared.mean()), rel=1e-6)
    assert found.map_rmse < found.constant_rmse


def test_skill_is_nought_for_the_best_constant_and_one_without_error() -> None:
    _, true = maps()
    constant = np.full(true.shape, true.astype(np.float64).mean())
    units = list("abcdef")
    of_constant = measure(image_errors(constant, true, LOW, HIGH), 0.0, units=units)
    assert of_constant.skill.value == pytest.approx(0, abs=1e-9)
    assert measure(image_errors(true, true, LOW, HIGH), 0.0, units=units).skill.value == 1


def test_an_interval_covers_the_error_of_the_population() -> None:
    """In about 95 of 100 sets drawn from errors whose mean square is known."""
    rng, inside = np.random.default_rng(0), 0
    for seed in range(60):
        squared = rng.exponential(4.0, 80)
        flat = np.ones(80)
        errors = ImageErrors(squared, flat, flat, flat, flat, flat * 2)
        found = measure(errors, 0.0, units=np.arange(80), resamples=300, seed=seed).rmse
        inside += found.low <= 2 <= found.high
    assert 51 <= inside <= 60


def test_images_of_a_group_are_drawn_together_so_the_interval_is_wider() -> None:
    rng = np.random.default_rng(1)
    squared = np.repeat(rng.exponential(4.0, 20), 10)
    flat = np.ones(200)
    errors = ImageErrors(squared, flat, flat, flat, flat, flat * 2)
    alone = measure(errors, 0.0, units=np.arange(200)).rmse
    grouped = measure(errors, 0.0, units=[str(i // 10) for i in range(200)])
    assert grouped.units == 20
    assert grouped.rmse.high - grouped.rmse.low > 2 * (alone.high - alone.low)
    again = measure(errors, 0.0, units=[str(i // 10) for i in range(200)])
    assert grouped.rmse == again.rmse
    assert math.isnan(grouped.mae.low)  # all alike: resampling tells nothing of its spread


def test_maps_of_different_shapes_or_an_empty_range_are_refused() -> None:
    predicted, true = maps()
    with pytest.raises(ValueError, match=r"maps of shape \(6, 14, 13\) and \(6, 14, 12\)"):
        image_errors(predicted, true[..., :12], LOW, HIGH)
    with pytest.raises(ValueError, match="the range of depths is empty"):
        image_errors(predicted, true, HIGH, HIGH)
