"""The preview of a method's recipe shows the views that its run has."""

from dataclasses import replace

import pytest

from data_prep.augment.config import PAPER_VIEWS
from data_prep.cli import augment
from data_prep.errors import UserError
from simclr_tf.cli.run import COMMAND
from simclr_tf.config.run_config import RunConfig
from simclr_tf.training.build import small_view_config, view_config


def run_of(*arguments: str) -> RunConfig:
    return COMMAND.parsed(arguments)[0]


@pytest.mark.parametrize("method", sorted(PAPER_VIEWS))
def test_preview_and_run_have_the_same_views(method: str) -> None:
    config = run_of(f"--preset={method}_views", "--image_size=96", "--vertical_flip")
    line = [f"--recipe={method}", "--image_size=96", "--vertical_flip", "--preview=a.png"]
    preview, given = augment.COMMAND.parsed(line)
    preview = preview.completed(PAPER_VIEWS[method], given)
    shown = augment.previewed_views(preview, 3)
    trained = view_config(config, 3)
    assert replace(shown, num_views=2, gray_probability=0.2) == trained
    small = small_view_config(config, 3)
    previewed = augment.previewed_crops(preview, shown)
    assert (previewed and replace(previewed, gray_probability=0.2)) == small
    assert (small is not None) == (method == "swav")


def test_byol_has_the_views_of_its_paper() -> None:
    views = view_config(run_of("--preset=byol_views"), 3)
    assert views.blur_probability == (1.0, 0.1)
    assert views.solarize_probability == (0.0, 0.2)
    assert 0.8 * views.color_jitter_strength * views.saturation_share == pytest.approx(0.2)
    assert 0.2 * views.color_jitter_strength == pytest.approx(0.1)


def test_neither_is_left_in_finetuning() -> None:
    config = run_of("--train_mode=finetune", "--solarize_probability=1")
    assert not view_config(config, 3).solarize


@pytest.mark.parametrize("text", ["", "a", "1,2", "0.1,0.2,0.3", "-0.1"])
def test_wrong_shares_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=f"--solarize_probability={text}: give a share"):
        run_of(f"--solarize_probability={text}")
