"""Same bytes, same looks: against plain loops, and on copies made here."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.near_duplicates import (
    NEAR_CORRELATION,
    SIDE,
    Looks,
    file_hashes,
    gray_thumbnail,
    hash_of_part,
    looks_of,
    near_groups,
    near_pairs,
    perceptual_hash,
)


def texture(seed: int, height: int = 120, width: int = 160) -> Image.Image:
    """Smooth random blobs over the whole picture."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 10, width // 10), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def point_source(seed: int) -> Image.Image:
    """A bright spot of a given width on black."""
    y, x = np.mgrid[:120, :120] - 60.0
    spot = 255 * np.exp(-(x**2 + y**2) / (2 * (2.0 + 0.3 * seed) ** 2))
    return Image.fromarray(spot.astype(np.uint8))


def manifest_of(folder: Path, pictures: dict[str, Image.Image]) -> Manifest:
    for name, picture in pictures.items():
        picture.save(folder / name)
    return Manifest(tuple(Record(name) for name in pictures), str(folder))


def test_file_hashes_are_those_of_hashlib(tmp_path: Path) -> None:
    files = []
    for i, size in enumerate((0, 5, 3 * 2**20 + 1)):
        file = tmp_path / str(i)
        file.write_bytes(bytes([i]) * size)
        files.append(str(file))
    seen: list[tuple[int, int]] = []
    found = file_hashes(files, lambda done, total: seen.append((done, total)))
    assert found == [hashlib.sha256(Path(f).read_bytes()).hexdigest() for f in files]
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_recoded_resized_and_brighter_copies_are_near_and_nothing_else(tmp_path: Path) -> None:
    original = texture(0)
    pictures = {
        "a.png": original,
        "b.jpg": original,
        "half.png": original.resize((80, 60), Image.Resampling.LANCZOS),
        "dark.png": original.point(lambda value: int(value * 0.6) + 20),
        **{f"other{i}.png": texture(i) for i in range(1, 30)},
    }
    looks = looks_of(manifest_of(tmp_path, pictures))
    pairs = near_pairs(looks)
    assert pairs.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    groups = near_groups(pairs, len(pictures))
    assert len(set(groups[:4].tolist())) == 1
    assert len(set(groups.tolist())) == 30


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flip", [False, True])
def test_mirrored_and_turned_copies_are_found_when_asked_for(
    tmp_path: Path, turns: int, flip: bool
) -> None:
    original = texture(1, 120, 120)
    copy = np.rot90(np.asarray(original)[:, ::-1] if flip else np.asarray(original), turns)
    pictures = {"a.png": original, "b.png": Image.fromarray(copy.copy()), "c.png": texture(2)}
    looks = looks_of(manifest_of(tmp_path, pictures))
    assert near_pairs(looks, turned=True).tolist() == [[0, 1]]
    assert near_pairs(looks).tolist() == ([] if flip or turns else [[0, 1]])


def test_point_sources_of_different_width_are_no_duplicates(tmp_path: Path) -> None:
    pictures = {f"{i}.png": point_source(i) for i in range(8)} | {"again.png": point_source(3)}
    assert near_pairs(looks_of(manifest_of(tmp_path, pictures))).tolist() == [[3, 8]]


def test_the_blocks_find_the_pairs_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.manifest.near_duplicates._BLOCK", 7)
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (10, SIDE, SIDE))
    noisy = base[rng.integers(0, 10, 40)] + rng.integers(-40, 41, (40, SIDE, SIDE))
    thumbnails = np.clip(noisy, 0, 255).astype(np.uint8)
    looks = Looks(np.array([perceptual_hash(t) for t in thumbnails], np.uint64), thumbnails)
    expected = []
    for i in range(40):
        for j in range(i + 1, 40):
            bits = bin(int(looks.hashes[i]) ^ int(looks.hashes[j])).count("1")
            alike = np.corrcoef(thumbnails[i].ravel(), thumbnails[j].ravel())[0, 1]
            if bits <= 12 and alike >= 0.9:
                expected.append([i, j])
    assert 0 < len(expected) < 780
    assert near_pairs(looks, 12, 0.9).tolist() == expected


def test_jpegs_decoded_at_a_fraction_look_like_the_whole(tmp_path: Path) -> None:
    large = texture(5).resize((1600, 1200), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.jpg", quality=95)
    drafted = gray_thumbnail(str(tmp_path / "large.jpg")).astype(int)
    with Image.open(tmp_path / "large.jpg") as image:
        whole = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
    whole = (whole - whole.min()) * 255 / (whole.max() - whole.min())
    assert np.abs(drafted - whole).max() < 8


def test_constant_pictures_look_like_nothing(tmp_path: Path) -> None:
    pictures = {
        "white.png": Image.new("L", (64, 64), 255),
        "black.png": Image.new("L", (64, 64), 0),
        "also_black.png": Image.new("L", (64, 64), 0),
        "texture.png": texture(0),
    }
    assert near_pairs(looks_of(manifest_of(tmp_path, pictures))).tolist() == []


def test_sixteen_bit_and_tiles_are_read_as_the_manifest_says(tmp_path: Path) -> None:
    wide = np.concatenate([np.asarray(texture(3)), np.asarray(texture(4))], axis=1)
    Image.fromarray(wide.astype(np.uint16) * 256).save(tmp_path / "wide.png")
    texture(4).save(tmp_path / "right.png")
    records = (Record("wide.png", tile="0,0,160,120"), Record("wide.png", tile="160,0,160,120"),
               Record("right.png"))  # fmt: skip
    looks = looks_of(Manifest(records, str(tmp_path)))
    assert near_pairs(looks).tolist() == [[1, 2]]


def in_a_frame(picture: Image.Image, white: int) -> Image.Image:
    framed = Image.new("L", (220, 200), white)
    framed.paste(picture, (20, 30))
    return framed


def test_a_white_frame_around_all_makes_no_duplicates(tmp_path: Path) -> None:
    framed = [in_a_frame(texture(i).point(lambda value: value // 4), 255) for i in range(20)]
    again = in_a_frame(texture(0).point(lambda value: value // 5), 255)
    pictures = {f"{i}.png": picture for i, picture in enumerate([*framed, again])}
    looks = looks_of(manifest_of(tmp_path, pictures))
    by_frame = np.corrcoef(looks.thumbnails.reshape(21, -1))
    assert by_frame[0, 1:20].max() > NEAR_CORRELATION  # so the frame alone would do
    assert near_pairs(looks).tolist() == [[0, 20]]


def test_a_tile_has_the_hash_of_its_values_in_whatever_picture(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", picture)
    np.save(tmp_path / "stack.npy", np.stack([picture, picture[::-1]]))
    Image.fromarray(picture[10:26, 20:36]).save(tmp_path / "cut.png")
    tile = "20,10,16,16"
    hashes = {
        hash_of_part(str(tmp_path / "a.png"), "intensity=sqrt", tile),
        hash_of_part(str(tmp_path / "a.npy"), "", tile),
        hash_of_part(str(tmp_path / "stack.npy"), "page=0;axes=NHW", tile),
        hash_of_part(str(tmp_path / "cut.png")),
    }
    assert len(hashes) == 1
    assert hash_of_part(str(tmp_path / "a.png"), "", "21,10,16,16") not in hashes
    for name in ("a.png", "a.npy"):
        with pytest.raises(UserError, match=rf"/{name}: tile 40,0,16,16 does not lie in the pict"):
            hash_of_part(str(tmp_path / name), "", "40,0,16,16")
