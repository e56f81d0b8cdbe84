import pytest

from data_prep.errors import UserError
from simclr_tf.config.run_config import RunConfig
from simclr_tf.models.architectures import (
    BACKBONES,
    HybridArchitecture,
    KerasArchitecture,
    ViTArchitecture,
    architecture_of,
    normalize_backbone_name,
)


@pytest.mark.parametrize(("name", "width", "heads"), [("vit_tiny", 192, 3), ("vit_small", 384, 6)])
def test_vits_have_the_widths_and_heads_of_deit(name: str, width: int, heads: int) -> None:
    whole = ViTArchitecture(name)
    assert (whole.width, whole.heads, whole.transformer_depth) == (width, heads, 12)
    assert whole.blocks == 3, "twelve blocks in four groups"
    assert whole.width // whole.heads == 64
    half = ViTArchitecture(name, width_multiplier=0.5)
    assert half.width % (4 * half.heads) == 0
    assert abs(half.width - width / 2) <= 4 * half.heads


def test_an_architecture_comes_back_from_its_options() -> None:
    for architecture in (
        ViTArchitecture("vit_small", 0.5, 8, 3, patch_size=7, fixed_patches=False),
        HybridArchitecture("hybrid", 2.0, 4, 5, cifar_stem=True),
        KerasArchitecture("keras:ResNet50", 2),
    ):
        channels = architecture.image_channels
        assert architecture_of(architecture.options(), channels) == architecture
        described = {**architecture.config(), "feature_dim": 7}
        assert architecture_of(described, channels) == architecture


def test_case_and_hyphens_of_a_network_of_keras_do_not_matter() -> None:
    assert normalize_backbone_name("keras:EfficientNetV2-B0") == "keras:efficientnetv2b0"
    assert normalize_backbone_name("Keras:MobileNet_V2") == "keras:mobilenetv2"
    assert normalize_backbone_name("vit_tiny") == "vit_tiny"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"backbone": "resnet50"}, "--backbone=resnet50: choose resnet, vit_tiny"),
        ({"backbone": "vit_tiny", "transformer_depth": 6}, "give a multiple of 4"),
        ({"backbone": "hybrid", "transformer_depth": 3}, "give a multiple of 2"),
        ({"backbone": "vit_tiny", "image_size": 8}, "--image_size=8: is smaller than a patch"),
        ({"backbone_weights": "imagenet"}, "--backbone_weights is for networks of keras"),
        (
            {"backbone": "keras:VGG16", "backbone_weights": "w.h5", "checkpoint": "run"},
            "--backbone_weights and --checkpoint",
        ),
    ],
)
def test_what_is_impossible_is_refused_with_the_flag(flags: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(UserError, match=message) as error:
        RunConfig.from_values(flags)
    assert "\n" not in str(error.value)


def test_patches_are_fixed_in_pretraining_and_train_afterwards_unless_flags_say_otherwise() -> None:
    def fixed(**values: object) -> bool:
        options = RunConfig.from_values({"backbone": "vit_tiny", **values}).backbone_options()
        assert options is not None
        return bool(options["fixed_patches"])

    assert fixed()
    assert not fixed(train_mode="finetune")
    assert not fixed(patch_projection="trained")
    assert fixed(patch_projection="fixed", train_mode="finetune")
    assert RunConfig.from_values({}).backbone_options() is None
    assert BACKBONES == ("resnet", "vit_tiny", "vit_small", "hybrid")
