"""What new files are held against: the files of the training."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.read_options import Declaration, carried
from data_prep.reading.intensity import parse_intensity
from data_prep.reading.training_files import TrainingFiles, differences, look_at

SCENE = np.random.default_rng(0).integers(0, 4096, (20, 30))  # of a 12-bit camera


def written(folder: Path, kind: str, reading: str = "") -> Manifest:
    """Three images of the scene as files of a kind."""
    folder.mkdir()
    names = []
    for number in range(3):
        if kind == "npy":
            names.append(f"{number}.npy")
            np.save(folder / names[-1], (SCENE / 4095).astype(np.float32))
        else:
            pixels = (SCENE >> 4).astype(np.uint8) if kind == "8" else SCENE.astype(np.uint16)
            if kind == "colour":
                pixels = np.repeat((SCENE >> 4).astype(np.uint8)[..., None], 3, axis=-1)
            names.append(f"{number}.png")
            Image.fromarray(pixels).save(folder / names[-1])
    return Manifest(tuple(Record(name, reading=reading) for name in names), str(folder))


def test_depth_channels_and_values_are_those_of_the_files(tmp_path: Path) -> None:
    found = look_at(written(tmp_path / "a", "16"))
    assert (found.bits, found.channels) == ((16,), (1,))
    expected = np.percentile(SCENE / 65535, (1, 99))
    np.testing.assert_allclose(found.values, expected, rtol=0.02)  # type: ignore[arg-type]
    ruled = look_at(written(tmp_path / "b", "16", "intensity=minmax"))
    assert ruled.bits == (16,)
    assert ruled.values == pytest.approx((0.01, 0.99), abs=0.02)
    assert look_at(written(tmp_path / "c", "npy")).bits == (32,)
    assert look_at(written(tmp_path / "d", "colour")).channels == (3,)
    assert TrainingFiles.from_record({"training_files": found.to_json()}).bits == (16,)
    assert TrainingFiles.from_record({}) == TrainingFiles()


@pytest.mark.parametrize("rule", ["", "percentile:1,99", "sqrt(0,100)@12,3071"])
def test_an_8_bit_file_of_what_was_trained_on_in_16_bits(tmp_path: Path, rule: str) -> None:
    trained = look_at(written(tmp_path / "a", "16"))
    new = look_at(written(tmp_path / "b", "8"))
    parsed = parse_intensity(rule) if rule else None
    if "@" in rule:
        with pytest.raises(UserError, match=r"limits of its intensity rule .* convert the files"):
            differences(trained, new, parsed)
    elif rule:
        assert differences(trained, new, parsed) == []
    else:
        with pytest.raises(UserError, match=r"of 16 bits, these are of 8 bits, and bright: .*none"):
            differences(trained, new, parsed)
    assert len(differences(trained, new, parsed, forced=True)) == (rule != "percentile:1,99")


def test_what_may_be_right_is_only_said() -> None:
    trained = TrainingFiles((16,), (1,), (0.0, 0.9))
    (said,) = differences(trained, TrainingFiles((8,), (1,), (0.0, 0.8)), None)
    assert "right if both use the whole range" in said
    (said,) = differences(trained, TrainingFiles((16,), (1,), (0.0, 0.1)), None)
    assert said.startswith("dark: 99 % of their values lie below 0.1 of the range, in training")
    (said,) = differences(trained, TrainingFiles((16,), (3,), (0.0, 0.9)), None)
    assert "colour is reduced to its luma" in said
    color = TrainingFiles((8,), (3,), (0.0, 0.9))
    (said,) = differences(color, TrainingFiles((8,), (1,), (0.0, 0.9)), None)
    assert "grey is taken as colour" in said
    assert differences(TrainingFiles(), trained, None) == []
    assert differences(trained, trained, None) == []


def test_exif_travels_always_and_networks_of_before_ignore_it() -> None:
    assert Declaration().record() == {"exif": "apply"}
    assert Declaration(**carried(Declaration().record())) == Declaration()
    assert carried({"intensity": "minmax"}) == {"intensity": "minmax", "exif": "ignore"}


def test_percentiles_travel_with_their_rule_and_those_of_before_are_sampled() -> None:
    new = Declaration(intensity="percentile:1,99")
    assert new.record()["percentiles"] == "exact"
    assert Declaration(**carried(new.record())) == new
    for rule in ("percentile(1,99)", "sqrt(0,99)", "arcsinh"):
        assert carried({"intensity": rule, "exif": "apply"})["percentiles"] == "sampled"
    old = Declaration(**carried({"intensity": "percentile(1,99)"}))
    assert old.record()["percentiles"] == "sampled"
    assert str(old.reading()) == "exif=ignore;intensity=percentile(1,99);percentiles=sampled"
    for rule in ("sqrt", "zscore(3)", "percentile(1,99)@12,3071"):
        assert "percentiles" not in carried({"intensity": rule})


def test_a_manifest_of_before_has_the_hash_of_one_that_ignores_exif() -> None:
    record = Record("a.jpg", "x", "train")
    old = Manifest((record,))
    new = Manifest((Record("a.jpg", "x", "train", reading="exif=ignore"),))
    assert old.sha256() == new.sha256()
    sampled = [
        Manifest((Record("a.jpg", reading=f"intensity=percentile(1,99){end}"),))
        for end in ("", ";percentiles=sampled")
    ]
    assert sampled[0].sha256() == sampled[1].sha256()
    ruled = [
        Manifest((Record("a.jpg", reading=f"{e}intensity=minmax"),)) for e in ("", "exif=ignore;")
    ]
    assert ruled[0].sha256() == ruled[1].sha256() != Manifest((Record("a.jpg"),)).sha256()
