"""From what a command declares to the records: pages, stacks, tiles, limits of a set."""

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.open_images import find_set_limits, has_open_limits, open_declared
from data_prep.manifest.read_options import Declaration, declaration_of
from data_prep.manifest.scan import check_images, image_facts, scan_folder
from data_prep.reading import headers
from data_prep.reading.headers import survey
from data_prep.reading.images import read_image
from data_prep.reading.spec import parse_reading
from data_prep.reading.tiles import parse_box
from tests.data_prep.image_files import pixels, write, write_class_folders

STACK = np.random.default_rng(0).exponential(100, (5, 6, 7)).astype(np.float32)


def opened(folder: Path, **declared: Any) -> Manifest:
    return open_declared(str(folder), "", Declaration(**declared))


def rows(manifest: Manifest) -> list[tuple[str, str, str, str]]:
    return [(r.path, r.group, r.tile, r.reading) for r in manifest.records]


def test_nothing_declared_is_a_plain_scan(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 2, "b": 1})
    assert opened(tmp_path) == scan_folder(tmp_path)


def test_what_headers_say_goes_along_with_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [(4, 5), (7, 6), (9, 8)]
    for number, size in enumerate(sizes):
        np.save(tmp_path / f"{number}.npy", np.ones(size, np.uint16) * number)
    images = opened(tmp_path, intensity="minmax", intensity_per="set")
    found = find_set_limits(images, images)
    assert found.records[0].reading != images.records[0].reading

    def read_again(path: str, *_: Any) -> headers.Header:
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(headers, "read_header", read_again)
    part = found.subset(replace(record, split="test") for record in reversed(found.records))
    facts = image_facts(part.split("test"))
    assert facts.survey.height.tolist() == [9, 7, 4]
    assert facts.survey.width.tolist() == [8, 6, 5]
    assert (facts.bits, facts.channels, facts.total_pixels) == (32, 1, 20 + 42 + 72)
    # Another reading, another tile and another place are other images.
    for other in (
        part.subset([replace(part.records[0], reading="")]),
        part.subset([replace(part.records[0], tile="0,0,2,2")]),
        Manifest(part.records, part.root),
    ):
        with pytest.raises(AssertionError, match="is read again"):
            image_facts(other)


def test_every_image_of_a_stack_is_a_record_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "lens").mkdir()
    np.save(tmp_path / "lens" / "stack.npy", STACK)
    manifest = opened(tmp_path, axes="NHW", intensity="minmax")
    assert rows(manifest) == [
        ("lens/stack.npy", "", "", f"page={page};axes=NHW;intensity=minmax") for page in range(5)
    ]
    names = ("train", "train", "test", "train", "test")
    split = manifest.subset(
        replace(record, split=name) for record, name in zip(manifest.records, names, strict=True)
    )
    split.save(tmp_path / "m.csv")
    assert Manifest.load(tmp_path / "m.csv") == split
    assert opened(tmp_path, axes="NHW", page="3", intensity="minmax").records == (
        manifest.records[3],
    )


def test_pages_of_a_tiff_form_a_group(tmp_path: Path) -> None:
    pages = [Image.fromarray(pixels(seed, channels=1)) for seed in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    write(tmp_path / "b.png", pixels(9, channels=1))
    assert rows(opened(tmp_path, page="all")) == [
        *(("a.tif", "a.tif", "", f"page={page}") for page in range(3)),
        ("b.png", "", "", ""),
    ]
    assert rows(opened(tmp_path))[0] == ("a.tif", "", "", "")
    assert rows(opened(tmp_path, page="stack"))[0] == ("a.tif", "", "", "page=stack")


def test_tiles_are_records_of_the_group_of_their_picture(tmp_path: Path) -> None:
    write(tmp_path / "a" / "wide.jpg", pixels(1, 20, 50))
    write(tmp_path / "b" / "small.jpg", pixels(2, 20, 20))
    manifest = opened(tmp_path, tile=16, overlap=4)
    assert [(r.group, r.tile) for r in manifest.records] == [
        *(("a/wide.jpg", f"{x},0,16,16") for x in (0, 12, 24)),
        ("b/small.jpg", "0,0,16,16"),
    ]
    assert len(opened(tmp_path, tile=16, tile_rest="keep")) == 8 + 4
    again = opened(tmp_path, tile=16, overlap=4)
    again.save(tmp_path / "m.csv")
    cut_once = open_declared("", str(tmp_path / "m.csv"), Declaration(tile=8))
    assert cut_once.records == manifest.records


def test_pictures_smaller_than_a_tile(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "a.png", pixels(1, 10, 40))
    write(tmp_path / "b.png", pixels(2, 40, 40))
    with caplog.at_level(logging.WARNING):
        assert len(opened(tmp_path, tile=32)) == 1
    assert "1 pictures are smaller than --tile=32 and give none: a.png" in caplog.text
    assert opened(tmp_path, tile=32, tile_rest="keep").records[0].tile == "0,0,32,10"
    with pytest.raises(UserError, match="2 pictures are smaller than --tile=64; take a smaller"):
        opened(tmp_path, tile=64)
    with pytest.raises(UserError, match="overlap must be less than the tile"):
        opened(tmp_path, tile=8, overlap=8)


def test_tiles_of_a_stack_know_their_page(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", STACK / STACK.max())
    manifest = opened(tmp_path, axes="NHW", tile=3)
    assert len(manifest) == 5 * 2 * 2
    assert {r.group for r in manifest.records} == {f"s.npy, page {page}" for page in range(5)}
    for record, file in zip(manifest.records, manifest.files(), strict=True):
        page = parse_reading(record.reading).page
        x, y, width, height = parse_box(record.tile)
        image = read_image(file, None, record.reading, record.tile)
        expected = (STACK / STACK.max())[page, y : y + height, x : x + width]
        np.testing.assert_array_equal(image[..., 0], expected)


def test_raw_files_count_only_when_declared(tmp_path: Path) -> None:
    STACK[0].astype(">f4").tofile(tmp_path / "a.raw")
    write(tmp_path / "b.png", pixels(1, channels=1))
    assert [r.path for r in opened(tmp_path).records] == ["b.png"]
    declared = {"raw_shape": "6x7", "raw_dtype": ">float32", "intensity": "minmax"}
    manifest = opened(tmp_path, **declared)
    assert [r.path for r in manifest.records] == ["a.raw", "b.png"]
    image = read_image(manifest.files()[0], reading=manifest.records[0].reading)
    np.testing.assert_allclose(
        image[..., 0], (STACK[0] - STACK[0].min()) / np.ptp(STACK[0]), rtol=1e-6
    )


def test_a_manifest_is_completed_and_contradicting_it_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", STACK)
    (tmp_path / "m.csv").write_text("path,reading\ns.npy,axes=NHW;page=4\n")
    manifest = open_declared("", str(tmp_path / "m.csv"), Declaration(intensity="sqrt"))
    assert manifest.records[0].reading == "page=4;axes=NHW;intensity=sqrt(0,100)"
    same = open_declared("", str(tmp_path / "m.csv"), Declaration(axes="NHW", intensity="sqrt"))
    assert same == manifest
    with pytest.raises(UserError, match=r"s\.npy: .* axes=NHW, .* axes=HWC; let them agree"):
        open_declared("", str(tmp_path / "m.csv"), Declaration(axes="HWC"))


def test_unreadable_files_are_named_or_left_out(tmp_path: Path) -> None:
    np.save(tmp_path / "good.npy", STACK)
    (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY broken")
    (tmp_path / "m.csv").write_text("path\nbad.npy\ngood.npy\n")
    declared = Declaration(axes="NHW", intensity="minmax")
    for source in ((str(tmp_path), ""), ("", str(tmp_path / "m.csv"))):
        with pytest.raises(UserError, match=r"bad\.npy.*NPY cannot be read"):
            open_declared(*source, declared)
    assert len(open_declared(str(tmp_path), "", declared, skip_unreadable=True)) == 5


def test_limits_of_the_set_come_from_training_pictures_alone(tmp_path: Path) -> None:
    holed = STACK.copy()
    holed[0, 0, 0] = np.nan
    holed[4] *= 100  # the test image
    np.save(tmp_path / "s.npy", holed)
    declared = {"axes": "NHW", "intensity": "percentile:1,99", "intensity_per": "set"}
    manifest = opened(tmp_path, **declared, nan="min", tile=3)
    splits = ["test" if "page=4" in r.reading else "train" for r in manifest.records]
    manifest = manifest.subset(
        replace(r, split=split) for r, split in zip(manifest.records, splits, strict=True)
    )
    assert has_open_limits(manifest)
    found = find_set_limits(manifest, manifest.split("train"))
    assert not has_open_limits(found)
    low, high = np.nanpercentile(holed[:4].astype(np.float64), [1, 99])
    rule = f"percentile(1,99)@{float(low)},{float(high)}"
    assert {r.reading for r in found.records} == {
        f"page={page};axes=NHW;nan=min;intensity={rule}" for page in range(5)
    }
    assert find_set_limits(found, found.split("train")) == found


def test_depths_within_a_type_are_named_where_limits_are_common(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8)
    tifffile.imwrite(
        tmp_path / "twelve.tif", values, photometric="minisblack", bitspersample=12, metadata=None
    )
    tifffile.imwrite(tmp_path / "sixteen.tif", values, photometric="minisblack")
    manifest = opened(tmp_path, intensity="minmax", intensity_per="set")
    found = find_set_limits(manifest, manifest)
    assert {r.reading for r in found.records} == {"intensity=minmax@0,63"}
    assert re.search(
        r"different depths .*twelve\.tif of 12 bits, .*sixteen\.tif of 16", caplog.text
    )
    caplog.clear()
    find_set_limits(manifest, manifest.subset(manifest.records[:1]))
    assert "depths" not in caplog.text


def test_images_of_a_raw_file_at_other_places_are_others(tmp_path: Path) -> None:
    whole = np.arange(64, dtype=np.uint8)
    whole.tofile(tmp_path / "a.raw")
    raw = "shape=4,8;dtype=uint8;offset=32", "shape=2,8;dtype=uint8;offset=48"
    Manifest(tuple(Record("a.raw", reading=r) for r in raw)).save(tmp_path / "m.csv")
    listed = Manifest.load(tmp_path / "m.csv")
    assert [r.name for r in listed.records] == ["a.raw, offset 32", "a.raw, offset 48"]
    for record, start in zip(listed.records, (32, 48), strict=True):
        values = read_image(str(tmp_path / "a.raw"), None, record.reading)
        np.testing.assert_array_equal(values.ravel(), whole[start:])
    Manifest((listed.records[0],) * 2).save(tmp_path / "m.csv")
    with pytest.raises(UserError, match=r"a\.raw, offset 32 is listed twice"):
        Manifest.load(tmp_path / "m.csv")


def test_limits_need_training_pictures_of_one_depth(tmp_path: Path) -> None:
    write(tmp_path / "a.png", pixels(1, channels=1))
    write(tmp_path / "b.png", pixels(1, channels=1).astype(np.uint16))
    manifest = opened(tmp_path, intensity="minmax", intensity_per="set")
    with pytest.raises(
        UserError, match=r"8 bits and of more have no common .*a\.png of 8 .*b\.png of 16"
    ):
        find_set_limits(manifest, manifest)
    with pytest.raises(UserError, match="no training image"):
        find_set_limits(manifest, manifest.subset(()))


@pytest.mark.parametrize(
    "declared",
    [
        {},
        {"intensity": "sqrt(0,100)@3.0,9.5", "nan": "median"},
        {"axes": "NHW", "array_name": "x", "intensity": "zscore(3)"},
        {"page": "stack", "intensity": "minmax"},
        {"page": "1"},
        {"axes": "NHW", "intensity": "minmax", "tile": 3},
        {"axes": "NHW", "intensity": "minmax", "page": "1"},
        {"raw_shape": "6,7", "raw_dtype": "float32", "raw_offset": 4, "intensity": "minmax"},
    ],
)
def test_what_travels_with_a_network_reads_the_same_again(
    tmp_path: Path, declared: dict[str, Any]
) -> None:
    if "page" in declared and "axes" not in declared:
        pages = [Image.fromarray(pixels(seed, channels=1)) for seed in range(3)]
        pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    elif "raw_shape" in declared:
        (tmp_path / "a.raw").write_bytes(b"head" + STACK[0].tobytes())
    elif "array_name" in declared:
        np.savez(tmp_path / "a.npz", x=STACK, y=STACK)
    elif "axes" in declared:
        np.save(tmp_path / "a.npy", STACK)
    else:
        write(tmp_path / "a.png", pixels(1))
    manifest = opened(tmp_path, **declared)
    carried = declaration_of(manifest).changes()
    assert opened(tmp_path, **carried) == manifest


def test_two_rules_cannot_travel_with_one_network() -> None:
    records = (Record("a.png", reading="intensity=sqrt"), Record("b.png"))
    with pytest.raises(UserError, match="read by 2 intensity rules"):
        declaration_of(Manifest(records))


def test_a_manifest_tells_tiles_and_pages_apart(tmp_path: Path) -> None:
    def loaded(*lines: str) -> Manifest:
        (tmp_path / "m.csv").write_text("path,split,tile,reading\n" + "\n".join(lines))
        return Manifest.load(tmp_path / "m.csv")

    tiles = 'a.png,train,"0,0,5,5",', 'a.png,train,"5,0,5,5",'
    assert len(loaded(*tiles)) == 2
    assert len(loaded("s.npy,train,,page=0;axes=NHW", "s.npy,test,,page=1;axes=NHW")) == 2
    with pytest.raises(UserError, match=r"a\.png tiles of one picture are in two splits, tr"):
        loaded(tiles[0], 'a.png,test,"5,0,5,5",')
    with pytest.raises(UserError, match=r"a\.png \[0,0,5,5\] is listed twice"):
        loaded(tiles[0], tiles[0])
    with pytest.raises(UserError, match=r"s\.npy, page 1 is in two splits"):
        loaded("s.npy,train,,page=1;axes=NHW", "s.npy,test,,page=1;axes=NHW;nan=min")


def test_tiles_are_no_links_but_tiles_of_a_link_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a.jpg", pixels(1, 20, 20))
    tiles = [Record("a.jpg", split="train", tile=f"{x},0,5,5") for x in (0, 5)]
    with caplog.at_level(logging.WARNING):
        check_images(Manifest(tuple(tiles), str(tmp_path)))
    assert not caplog.text
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    other = Record("b.jpg", split="test", tile="10,0,5,5")
    with pytest.raises(UserError, match="in two splits by a link"):
        check_images(Manifest((*tiles, other), str(tmp_path)))


def test_the_header_of_a_stack_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "s.npy", STACK)
    loads = []
    formats = np.lib.format
    monkeypatch.setattr(
        formats, "read_magic", lambda s, read=formats.read_magic: loads.append(s) or read(s)
    )
    readings = [f"page={page};axes=NHW;intensity=minmax" for page in range(5)]
    found = survey([str(tmp_path / "s.npy")] * 5, readings)
    assert found.height.tolist() == [6] * 5
    assert len(loads) == 1
