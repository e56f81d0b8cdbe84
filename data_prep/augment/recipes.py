"""The views of other methods' papers, as flags that differ from SimCLR's.

A run of `simclr-run` has SimCLR's views whatever its method, unless flags say otherwise; these are
the flags that give it the views of the method's paper (`--preset=moco_views` and so on).
"""

from typing import Any

PAPER_VIEWS: dict[str, dict[str, Any]] = {
    # MoCo v2 (Chen et al. 2020, arXiv:2003.04297): brightness, contrast and saturation 0.4, hue 0.1
    # with probability 0.8; grey 0.2; blur 0.5. Crops of a fifth at least as in the authors' code.
    "moco": {"color_jitter_strength": 0.5, "min_crop_area": 0.2},
    # BYOL (Grill et al. 2020, appendix B): the same but for a saturation of 0.2, and not the same
    # for both views.
    "byol": {
        "color_jitter_strength": 0.5,
        "saturation_share": 0.5,
        "blur_probability": "1,0.1",
        "solarize_probability": "0,0.2",
    },
    # SwAV (Caron et al. 2020, appendix A): SimCLR's colours. That crops have 0.14 of the image at
    # least, and the small crops beside them, the method brings along.
    "swav": {},
}
