"""Forward passes, losses, moving statistics and gradients equal the recorded ones."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.losses.nt_xent import NTXent, nt_xent
from simclr_tf.losses.supervised import supervised_loss
from simclr_tf.losses.weight_decay import WeightDecay, decayed_variables
from simclr_tf.models import SimCLRModel, canonical_variables
from simclr_tf.models.variable_names import normalization_variables, supervised_head_variables
from tests import golden
from tests.simclr_tf.golden_models import golden_model, two_views


def cases(folder: str) -> list[str]:
    return sorted(path.stem for path in (golden.REFERENCE / folder).glob("r*.npz"))


def slow_if_large(case: str) -> Any:
    return case if case.startswith("r18_1x") else pytest.param(case, marks=pytest.mark.slow)


def sample(value: np.ndarray, stride: int) -> np.ndarray:
    return value.reshape(-1)[::stride][:256]


def all_endpoints(outputs: Any) -> dict[str, np.ndarray]:
    ends = dict(outputs.endpoints)
    ends |= {f"proj_hidden_{i}": hidden for i, hidden in enumerate(outputs.hiddens)}
    ends["proj_head_input"] = outputs.hiddens[0]
    ends["proj_head_output"] = outputs.projection
    ends["logits_sup"] = outputs.logits
    return {name: value.numpy() for name, value in ends.items()}


def check_endpoints(
    ends: dict[str, np.ndarray],
    facts: dict[str, Any],
    arrays: dict[str, np.ndarray],
    phase: str,
    tolerance: tuple[float, float],
) -> None:
    of_max, rtol = tolerance
    assert facts
    for name, fact in facts.items():
        value = ends[name]
        assert list(value.shape) == fact["shape"], name
        largest = max(abs(fact["min"]), abs(fact["max"]))
        expected = arrays[f"{phase}/{name}/sample"]
        actual = sample(value, fact["sample_stride"])
        np.testing.assert_allclose(actual, expected, rtol, of_max * largest, err_msg=name)
        if f"{phase}/{name}" in arrays:
            full = arrays[f"{phase}/{name}"]
            np.testing.assert_allclose(value, full, rtol, of_max * largest, err_msg=name)
        total = np.abs(value.astype(np.float64)).sum()
        np.testing.assert_allclose(total, fact["abs_sum"], max(rtol, of_max), err_msg=name)


class Step:
    """One training pass of a golden case: outputs, losses, and the tape to differentiate them."""

    def __init__(self, model: SimCLRModel, case: dict[str, Any], dtype: str) -> None:
        flags, batch = case["flags"], case["batch"]
        key = case["name"]
        x = golden.images(f"simclr:input/{key}/train", batch, case["image_size_used"], 6)
        self.labels = golden.labels(f"simclr:labels/{key}/train", batch, case["num_classes"])
        y = tf.constant(np.tile(self.labels, 2))
        head, norms = supervised_head_variables(model), normalization_variables(model)
        lars = decayed_variables("lars", model.trainable_variables, head, norms)
        plain = decayed_variables("momentum", model.trainable_variables, head, norms)
        rate = flags["weight_decay"]
        with tf.GradientTape() as self.tape:
            images = tf.constant(two_views(x), dtype)
            self.outputs = model.forward(images, True, stop_head_gradient=True)
            self.contrast: NTXent = nt_xent(self.outputs.projection, flags["temperature"])
            supervised = supervised_loss(self.outputs.logits, y)
            decay = WeightDecay(lars, rate)()
            self.total = self.contrast.loss + supervised + decay
        self.losses = {
            "contrast_loss": self.contrast.loss,
            "supervised_loss": supervised,
            "weight_decay_lars": decay,
            "weight_decay_non_lars": WeightDecay(plain, rate)(),
            "total_loss": self.total,
        }

    def gradients(self, model: SimCLRModel) -> dict[str, np.ndarray]:
        named = canonical_variables(model)
        trained = {name: named[name].value for name in named if named[name].trainable}
        grads = self.tape.gradient(self.total, list(trained.values()))
        return {name: grad.numpy() for name, grad in zip(trained, grads, strict=True)}


def check_moving_statistics(
    model: SimCLRModel,
    before: dict[str, np.ndarray],
    arrays: dict[str, np.ndarray],
    relative: float,
    absolute: float,
) -> None:
    named = canonical_variables(model)
    names = [str(name) for name in arrays["train/moving_names"]]
    assert set(names) == {n for n in named if "moving_" in n}
    for name, (mean, norm, delta), first4 in zip(
        names, arrays["train/moving_mean_norm_maxdelta"], arrays["train/moving_first4"], strict=True
    ):
        value = named[name].numpy().astype(np.float64)
        # What moves is the update, so that is what a relative deviation is relative to.
        atol = absolute + relative * delta
        moved = np.abs(value - before[name]).max()
        np.testing.assert_allclose(moved, delta, 0, atol, err_msg=name)
        np.testing.assert_allclose(value.mean(), mean, relative, atol, err_msg=name)
        np.testing.assert_allclose(value[:4], first4, relative, atol, err_msg=name)
        # The norm adds up the deviations of all channels.
        total = atol * np.sqrt(value.size)
        np.testing.assert_allclose(np.linalg.norm(value), norm, relative, total, err_msg=name)


@pytest.mark.parametrize("case", [slow_if_large(c) for c in cases("forward")])
def test_forward_pass_in_float32(case: str) -> None:
    facts, arrays = golden.load_json(f"forward/{case}"), golden.load_arrays(f"forward/{case}")
    model = golden_model(facts["flags"], facts["num_classes"])
    size, batch = facts["image_size_used"], facts["batch"]
    x = golden.images(f"simclr:input/{case}/eval", batch, size, 3)
    ends = all_endpoints(model.forward(tf.constant(x)))
    check_endpoints(ends, facts["eval"], arrays, "eval", (1e-5, 1e-4))

    before = {n: v.numpy().astype(np.float64) for n, v in canonical_variables(model).items()}
    step = Step(model, facts, "float32")
    noise = 5e-3 if "r50" in case else 1e-3
    train = facts["train"]
    ends = all_endpoints(step.outputs)
    check_endpoints(ends, train["endpoints"], arrays, "train", (noise, 1e-4))
    np.testing.assert_array_equal(step.labels, arrays["train/labels"])
    for name, value in step.losses.items():
        np.testing.assert_allclose(value, train[name], rtol=noise, err_msg=name)
    for name in ("weight_decay_lars", "weight_decay_non_lars"):
        np.testing.assert_allclose(step.losses[name], train[name], rtol=1e-5, err_msg=name)
    check_moving_statistics(model, before, arrays, relative=0, absolute=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("case", cases("forward_f64"))
def test_forward_pass_and_gradients_in_float64(case: str) -> None:
    facts, arrays = (
        golden.load_json(f"forward_f64/{case}"),
        golden.load_arrays(f"forward_f64/{case}"),
    )
    model = golden_model(facts["flags"], facts["num_classes"], "float64")
    size, batch = facts["image_size_used"], facts["batch"]
    x = golden.images(f"simclr:input/{case}/eval", batch, size, 3)
    ends = all_endpoints(model.forward(tf.constant(x, tf.float64)))
    check_endpoints(ends, facts["eval"], arrays, "eval", (1e-7, 1e-7))

    before = {n: v.numpy() for n, v in canonical_variables(model).items()}
    step = Step(model, facts, "float64")
    train = facts["train"]
    ends = all_endpoints(step.outputs)
    check_endpoints(ends, train["endpoints"], arrays, "train", (1e-7, 1e-7))
    logits_ab = arrays["train/contrast_logits_ab"]
    np.testing.assert_allclose(step.contrast.logits_ab, logits_ab, rtol=1e-7, atol=1e-8)
    for name, value in step.losses.items():
        np.testing.assert_allclose(value, train[name], rtol=1e-7, err_msg=name)
    check_moving_statistics(model, before, arrays, relative=1e-7, absolute=0)
    check_gradients(step.gradients(model), arrays)


def check_gradients(grads: dict[str, np.ndarray], arrays: dict[str, np.ndarray]) -> None:
    names = [str(name) for name in arrays["train/grad_names"]]
    assert set(names) == set(grads)
    for name, (norm, total, largest, probed), first4 in zip(
        names, arrays["train/grad_norm_sum_absmax_probe"], arrays["train/grad_first4"], strict=True
    ):
        grad = grads[name].reshape(-1)
        direction = golden.probe(name, grad.size) / np.sqrt(grad.size)
        np.testing.assert_allclose(np.linalg.norm(grad), norm, 1e-7, err_msg=name)
        np.testing.assert_allclose(np.abs(grad).max(), largest, 1e-7, err_msg=name)
        np.testing.assert_allclose(grad.sum(), total, 1e-7, 1e-7 * norm, err_msg=name)
        np.testing.assert_allclose(grad @ direction, probed, 1e-7, 1e-7 * norm, err_msg=name)
        np.testing.assert_allclose(grad[:4], first4[: grad.size], 1e-7, 1e-7 * norm, err_msg=name)
