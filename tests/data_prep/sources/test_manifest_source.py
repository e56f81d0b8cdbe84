import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.scan import scan_folder
from data_prep.reading.images import read_image
from data_prep.sources.manifest_source import ManifestSource
from data_prep.sources.source import Source
from tests.data_prep.image_files import pixels, write, write_class_folders, write_tiff


def folder_source(root: Path, **options: Any) -> ManifestSource:
    return ManifestSource(scan_folder(root), **options)


def decoded(source: Source) -> list[np.ndarray]:
    """All images in order, through a map as in a pipeline."""
    elements = source.elements(seed=0, shuffle=False, start=0, batch_size=4)
    images = elements.map(source.decode, num_parallel_calls=2, deterministic=True)
    assert images.element_spec.shape.as_list() == [None, None, source.channels]
    assert images.element_spec.dtype == source.image_dtype
    return [image.numpy() for image in images]


def write_all_formats(root: Path) -> list[str]:
    """Colour images of many formats and sizes, and one grey one; names in manifest order."""
    color = Image.fromarray(pixels(1) // 64 * 64)
    write(root / "a.png", pixels(2, 9, 14))
    write(root / "b.jpg", pixels(3, 20, 30), quality=90)
    write(root / "c.bmp", pixels(4, 8, 8))
    color.save(root / "d.gif", save_all=True, append_images=[Image.fromarray(pixels(9))])
    write(root / "e.tif", pixels(5, 7, 5))
    write(root / "f.png", pixels(6, channels=1))
    Image.fromarray(pixels(7)).convert("CMYK").save(root / "g.jpg")
    color.quantize(16).save(root / "h.png")
    write(root / "i.bmp", pixels(8, channels=1))
    Image.fromarray(pixels(7)).quantize(16).save(root / "j.bmp")
    rgba = color.convert("RGBA")
    rgba.putalpha(Image.fromarray(pixels(2, channels=1)))
    rgba.save(root / "k.png")
    write(root / "l.jpg", pixels(3), progressive=True)
    return [path.name for path in sorted(root.iterdir())]


@pytest.mark.parametrize("cache", ["true", "false"])
@pytest.mark.parametrize("channels", ["auto", 1])
def test_every_format_decodes_as_the_reader_reads_it(
    tmp_path: Path, cache: Any, channels: Any
) -> None:
    names = write_all_formats(tmp_path)
    source = folder_source(tmp_path, cache=cache, channels=channels)
    assert source.image_dtype == tf.uint8
    assert source.channels == (3 if channels == "auto" else 1)
    for name, image in zip(names, decoded(source), strict=True):
        expected = read_image(tmp_path / name, source.channels)
        # libpng and Pillow round their luma differently.
        tolerance = 0 if channels == "auto" else 1
        np.testing.assert_allclose(image.astype(int), expected, atol=tolerance, err_msg=name)


def test_wrong_endings_decode_by_content(tmp_path: Path) -> None:
    write(tmp_path / "x.png", pixels(1)).rename(tmp_path / "a.jpg")
    write(tmp_path / "x.jpg", pixels(2)).rename(tmp_path / "b.png")
    write(tmp_path / "x.bmp", pixels(3)).rename(tmp_path / "c.tif")
    images = decoded(folder_source(tmp_path))
    np.testing.assert_array_equal(images[0], pixels(1))
    np.testing.assert_array_equal(images[2], pixels(3))


@pytest.mark.parametrize("cache", ["true", "false"])
def test_sixteen_bits_and_floats_mixed_with_bytes(tmp_path: Path, cache: Any) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (6, 9), dtype=np.uint16)
    real = np.random.default_rng(1).random((5, 4)).astype(np.float32)
    write(tmp_path / "a.png", deep)
    write(tmp_path / "b.tif", deep)
    write_tiff(tmp_path / "c.tif", real)
    write(tmp_path / "d.png", pixels(1, channels=1))
    write(tmp_path / "e.tif", pixels(2, channels=1))
    source = folder_source(tmp_path, cache=cache)
    assert (source.channels, source.image_dtype) == (1, tf.float32)
    images = decoded(source)
    for image, expected in zip(
        images,
        [
            deep / 65535,
            deep / 65535,
            real,
            pixels(1, channels=1) / 255,
            pixels(2, channels=1) / 255,
        ],
        strict=True,
    ):
        np.testing.assert_allclose(image[..., 0], expected, rtol=1e-6)
        assert image.max() <= 1


def test_many_bands(tmp_path: Path) -> None:
    cube = np.random.default_rng(1).integers(0, 256, (9, 11, 5), dtype=np.uint8)
    write_tiff(tmp_path / "a.tif", cube, planarconfig="contig", photometric="minisblack")
    source = folder_source(tmp_path)
    assert source.channels == 5
    np.testing.assert_array_equal(decoded(source)[0], cube)
    with pytest.raises(UserError, match="have 5 channels, which cannot become 3"):
        folder_source(tmp_path, channels=3)


def test_gray_as_color_and_flag_values(tmp_path: Path) -> None:
    write(tmp_path / "a.png", pixels(1, channels=1))
    assert folder_source(tmp_path).channels == 1
    source = folder_source(tmp_path, channels="3")
    np.testing.assert_array_equal(decoded(source)[0], np.stack([pixels(1, channels=1)] * 3, -1))
    with pytest.raises(UserError, match="must be 'auto' or a number, not 'rgb'"):
        folder_source(tmp_path, channels="rgb")


def test_labels_are_positions_in_the_class_names(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"b": 2, "a": 1})
    write(tmp_path / "free.png", pixels(99, channels=1))
    source = folder_source(tmp_path)
    assert (source.class_names, source.num_examples) == (("a", "b"), 4)
    assert labels(source) == [-1, 0, 1, 1]
    other = folder_source(tmp_path, class_names=["x", "b", "a"])
    assert labels(other) == [-1, 2, 1, 1]
    with pytest.raises(UserError, match="'b' is not among the 1 known classes"):
        folder_source(tmp_path, class_names=["a"])


def labels(source: Source, seed: int = 0) -> list[int]:
    elements = source.elements(seed=seed, shuffle=False, start=0, batch_size=4)
    return [int(element["label"]) for element in elements]


def test_random_labels_are_a_function_of_seed_and_index(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 30, "b": 30})
    source = folder_source(tmp_path, labels="random")
    true = labels(folder_source(tmp_path))
    assert labels(source, 1) == labels(source, 1) != labels(source, 2)
    agreement = np.mean(np.array(labels(source, 1)) == true)
    assert 0.2 < agreement < 0.8
    shuffled = source.elements(seed=1, shuffle=True, start=0, batch_size=60).take(120)
    by_index = labels(source, 1)
    assert all(int(e["label"]) == by_index[int(e["index"])] for e in shuffled)
    assert source.identity != folder_source(tmp_path).identity


def test_random_labels_need_classes(tmp_path: Path) -> None:
    write(tmp_path / "a.png", pixels(1))
    with pytest.raises(UserError, match="random labels need classes"):
        folder_source(tmp_path, labels="random")
    assert folder_source(tmp_path, labels="random", class_names=["x", "y"]).num_examples == 1


@pytest.mark.parametrize("cache", ["true", "false"])
def test_batches_are_the_same_whatever_the_parallelism(tmp_path: Path, cache: Any) -> None:
    write_class_folders(tmp_path, {"a": 9, "b": 8}, channels=3)

    def batches(parallel: int) -> list[np.ndarray]:
        source = folder_source(tmp_path, cache=cache)
        elements = source.elements(seed=3, shuffle=True, start=0, batch_size=4)

        def prepare(element: dict[str, tf.Tensor]) -> tf.Tensor:
            seed = tf.stack([element["epoch"], element["index"]])
            return tf.image.stateless_random_crop(source.decode(element), [6, 6, 3], seed)

        mapped = elements.map(prepare, num_parallel_calls=parallel, deterministic=True)
        return [batch.numpy() for batch in mapped.batch(4).take(10)]

    first = batches(1)
    assert not np.array_equal(first[0], first[5])
    for parallel in (1, 7, tf.data.AUTOTUNE):
        for one, other in zip(first, batches(parallel), strict=True):
            np.testing.assert_array_equal(one, other)


def test_resume_and_shards_give_the_images_of_one_uninterrupted_run(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 7}, channels=3)
    source = folder_source(tmp_path)

    def images(start: int, count: int, shard: tuple[int, int] = (0, 1)) -> list[np.ndarray]:
        elements = source.elements(seed=5, shuffle=True, start=start, batch_size=4, shard=shard)
        return [source.decode(element).numpy() for element in elements.take(count)]

    whole = images(0, 24)
    np.testing.assert_array_equal(images(12, 12), whole[12:])
    second_half = [image for step in range(6) for image in whole[4 * step + 2 : 4 * step + 4]]
    np.testing.assert_array_equal(images(0, 12, (1, 2)), second_half)


def test_auto_cache_keeps_what_fits_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.png", pixels(1, 10, 10))
    assert folder_source(tmp_path).cached
    monkeypatch.setattr("data_prep.sources.manifest_source.CACHE_BUDGET", 300)
    assert folder_source(tmp_path).cached
    assert not folder_source(tmp_path, cache="false").cached
    monkeypatch.setattr("data_prep.sources.manifest_source.CACHE_BUDGET", 299)
    assert not folder_source(tmp_path).cached
    assert folder_source(tmp_path, cache="true").cached


def test_cached_images_are_read_once(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 3})
    source = folder_source(tmp_path, cache="true")
    before = decoded(source)
    shutil.rmtree(tmp_path / "a")
    np.testing.assert_array_equal(decoded(source), before)


def test_cache_is_not_copied_into_pipelines(tmp_path: Path) -> None:
    """The images must be referred to: a constant in the graph would break at 2 GiB."""
    write_class_folders(tmp_path, {"a": 40}, channels=3)
    source = folder_source(tmp_path, cache="true")
    elements = source.elements(seed=0, shuffle=True, start=0, batch_size=4)

    function = tf.function(source.decode).get_concrete_function(elements.element_spec)
    assert function.captured_inputs
    assert function.graph.as_graph_def().ByteSize() < 5_000 < 40 * 12 * 16 * 3


def test_identity_follows_what_the_examples_are(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "one", {"a": 2, "b": 2})
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one = folder_source(tmp_path / "one")
    assert one.identity == folder_source(tmp_path / "two", cache="false").identity
    assert one.identity != folder_source(tmp_path / "one", channels=3).identity
    assert one.identity != folder_source(tmp_path / "one", class_names=["b", "a"]).identity
    (tmp_path / "two" / "a" / "000.png").unlink()
    assert one.identity != folder_source(tmp_path / "two").identity


def spoil(root: Path) -> None:
    """Damages the compressed data of one image, which the headers do not show."""
    data = bytearray((root / "a" / "001.png").read_bytes())
    data[60:90] = bytes(30)
    (root / "a" / "001.png").write_bytes(data)


def test_damage_inside_a_file_is_named_when_the_cache_is_filled(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 3})
    spoil(tmp_path)
    with pytest.raises(UserError, match=r"^1 of 3 images cannot be read: .*a/001\.png") as caught:
        decoded(folder_source(tmp_path, cache="true"))
    assert "\n" not in str(caught.value)


def test_diagnose_names_the_file_after_a_failure(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 3})
    source = folder_source(tmp_path, cache="false")
    assert source.diagnose() is None
    spoil(tmp_path)
    (tmp_path / "a" / "002.png").unlink()
    with pytest.raises(tf.errors.OpError):
        decoded(source)
    error = source.diagnose()
    assert isinstance(error, UserError)
    assert "2 of 3 images cannot be read" in str(error)
    assert "a/001.png" in str(error)
    assert "a/002.png" in str(error)
    assert "\n" not in str(error)


def test_values_out_of_range_are_diagnosed_with_their_reason(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", np.full((4, 4), 300.0, np.float32))
    source = folder_source(tmp_path, cache="false")
    assert "values from 300 to 300; scale them to [0, 1]" in str(source.diagnose())


def test_names_in_any_script_can_be_read(tmp_path: Path) -> None:
    write(tmp_path / "鉱物 [1] ü#%.png", pixels(1))
    np.testing.assert_array_equal(decoded(folder_source(tmp_path, cache="false"))[0], pixels(1))


def test_unusable_manifests(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images to read"):
        ManifestSource(Manifest(()))
    with pytest.raises(UserError, match=r"gone\.png \(no such file\)"):
        ManifestSource(Manifest((Record("gone.png"),), str(tmp_path)))
