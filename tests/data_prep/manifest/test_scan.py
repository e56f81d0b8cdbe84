import logging
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.scan import check_images, image_facts, list_with_left_out, scan_folder
from tests.data_prep.image_files import pixels, write, write_class_folders, write_tiff


def rows(manifest: Manifest) -> list[tuple[str, str, str]]:
    return [(record.path, record.label, record.split) for record in manifest.records]


def test_class_folders_in_a_fixed_order(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"zebra": 2, "ant": 1})
    (tmp_path / "empty").mkdir()
    manifest = scan_folder(tmp_path)
    assert rows(manifest) == [
        ("ant/000.png", "ant", ""),
        ("zebra/000.png", "zebra", ""),
        ("zebra/001.png", "zebra", ""),
    ]
    assert manifest.root == str(tmp_path)
    assert manifest.class_names == ("ant", "zebra")


def test_flat_folder_has_no_labels_and_other_files_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "b.png", pixels(1))
    write(tmp_path / "a.JPG", pixels(2))
    write(tmp_path / ".hidden.png", pixels(3))
    write(tmp_path / ".cache" / "c.png", pixels(3))
    (tmp_path / "README.md").write_text("hello")
    (tmp_path / "LICENSE").write_text("hello")
    with caplog.at_level(logging.INFO):
        assert rows(scan_folder(tmp_path)) == [("a.JPG", "", ""), ("b.png", "", "")]
    assert "2 files are no images (1 .md, 1 no ending)" in caplog.text


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "validation", "test"), ("train", "validation", "test")),
        (("training", "validation", "testing"), ("train", "validation", "test")),
        (("train_set", "valid_set"), ("train", "validation")),
        (("Train", "VAL"), ("train", "validation")),
        (("train_data", "test_set"), ("train", "test")),
        (("test",), ("test",)),
    ],
)
def test_split_folders(tmp_path: Path, folders: tuple[str, ...], splits: tuple[str, ...]) -> None:
    for folder in folders:
        write_class_folders(tmp_path / folder, {"a": 1, "b": 1})
    manifest = scan_folder(tmp_path)
    assert manifest.splits == splits
    assert manifest.class_names == ("a", "b")
    assert rows(manifest)[0] == (f"{folders[0]}/a/000.png", "a", splits[0])
    assert len(manifest) == 2 * len(folders)


def test_split_folders_without_classes(tmp_path: Path) -> None:
    write(tmp_path / "train" / "a.png", pixels(1))
    write(tmp_path / "val" / "b.png", pixels(2))
    assert rows(scan_folder(tmp_path)) == [
        ("train/a.png", "", "train"),
        ("val/b.png", "", "validation"),
    ]


def test_deeper_images_belong_to_their_first_folder(tmp_path: Path) -> None:
    write(tmp_path / "a" / "core1" / "x.png", pixels(1))
    write(tmp_path / "a" / "y.png", pixels(2))
    write(tmp_path / "b" / "core2" / "deep" / "z.png", pixels(3))
    assert rows(scan_folder(tmp_path)) == [
        ("a/y.png", "a", ""),
        ("a/core1/x.png", "a", ""),
        ("b/core2/deep/z.png", "b", ""),
    ]


def test_images_beside_class_folders_have_no_label(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_class_folders(tmp_path, {"a": 1})
    write(tmp_path / "overview.png", pixels(9))
    manifest = scan_folder(tmp_path)
    assert rows(manifest) == [("overview.png", "", ""), ("a/000.png", "a", "")]
    assert "1 image beside the class folders has no label" in caplog.text


def test_class_missing_in_a_split_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_class_folders(tmp_path / "train", {"a": 1, "b": 1})
    write_class_folders(tmp_path / "test", {"a": 1})
    scan_folder(tmp_path)
    assert "split test has no images of class b" in caplog.text


def test_names_in_any_script_and_a_symlinked_folder(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "store", {"Größe": 1, "鉱物 α": 2})
    (tmp_path / "link").symlink_to(tmp_path / "store", target_is_directory=True)
    manifest = scan_folder(tmp_path / "link")
    assert manifest.class_names == ("Größe", "鉱物 α")
    assert image_facts(manifest).max_height == 12


def test_content_decides_not_the_ending(tmp_path: Path) -> None:
    write(tmp_path / "x.png", pixels(1)).rename(tmp_path / "x.jpg")
    write(tmp_path / "y.jpg", pixels(1)).rename(tmp_path / "y.tif")
    assert len(scan_folder(tmp_path)) == 2


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, "image folder not found"),
        (lambda root: root.write_text("x"), "is a file, not a folder"),
        (lambda root: root.mkdir(), r"no images \(.*\.png.*\) in "),
        (lambda root: (root / "a").mkdir(parents=True), "no images"),
        (
            lambda root: (root.mkdir(), (root / "cube.mat").write_text("x")),
            r"there are other files: 1 \.mat",
        ),
        (
            lambda root: (
                write(root / "train" / "a.png", pixels(1)),
                write(root / "extra" / "a.png", pixels(2)),
            ),
            "split folder 'train' beside the folder 'extra'",
        ),
        (
            lambda root: (
                write(root / "test" / "a.png", pixels(1)),
                write(root / "b.png", pixels(2)),
            ),
            "split folder 'test' beside the image 'b.png'",
        ),
        (
            lambda root: (
                write(root / "val" / "a.png", pixels(1)),
                write(root / "valid" / "b.png", pixels(2)),
            ),
            "'val' and 'valid' name the same split",
        ),
        (
            lambda root: write(root / "data" / "train" / "a.png", pixels(1)),
            "data holds the split folder 'train'; splits must lie above the classes",
        ),
    ],
)
def test_unusable_folders_are_refused_in_one_line(tmp_path: Path, prepare, message: str) -> None:
    prepare(tmp_path / "images")
    with pytest.raises(UserError, match=message) as caught:
        scan_folder(tmp_path / "images")
    assert "\n" not in str(caught.value)


def test_link_to_a_folder_above_is_refused(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 1})
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a", target_is_directory=True)
    with pytest.raises(UserError, match="is a link to a folder that holds it"):
        scan_folder(tmp_path)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_one_file_in_two_splits_by_a_link(tmp_path: Path, link) -> None:
    first = write(tmp_path / "train" / "a.png", pixels(1))
    write(tmp_path / "test" / "b.png", pixels(2))
    link(first, tmp_path / "test" / "c.png")
    with pytest.raises(UserError, match=r"in two splits by a link: .*a\.png and .*c\.png"):
        scan_folder(tmp_path)


def test_link_within_a_split_is_only_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = write(tmp_path / "a.png", pixels(1))
    os.symlink(first, tmp_path / "b.png")
    assert len(scan_folder(tmp_path)) == 2
    assert "1 image is a link to other images of the set" in caplog.text


def damaged(root: Path) -> dict[str, str]:
    """Writes good and bad files; gives what should be said of the bad ones."""
    write_class_folders(root, {"good": 3}, ending=".jpg")
    image = pixels(1, 40, 50)
    cuts = {"png": 12, "jpg": 40, "gif": 20, "bmp": 50, "tif": 100}
    for ending, cut in cuts.items():
        file = write(root / "bad" / f"cut.{ending}", image)
        file.write_bytes(file.read_bytes()[:-cut])
    (root / "bad" / "empty.png").touch()
    (root / "bad" / "text.png").write_text("this is no image")
    (root / "bad" / "head.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    (root / "bad" / "head.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    write_tiff(root / "bad" / "signed.tif", np.zeros((4, 4), np.int16))
    return {f"cut.{ending}": "truncated" for ending in cuts} | {
        "empty.png": "empty file",
        "text.png": "not a JPEG, PNG, BMP, GIF, TIFF or WebP image",
        "head.png": "damaged or truncated header",
        "head.jpg": "damaged or truncated header",
        "signed.tif": "holds int16 values, which have no natural range",
    }


def test_unreadable_images_are_named_and_counted(tmp_path: Path) -> None:
    expected = damaged(tmp_path)
    with pytest.raises(UserError, match=r"^10 of 13 images cannot be read: .*; and 7 more\.") as e:
        scan_folder(tmp_path)
    assert "bad/cut.bmp (truncated)" in str(e.value)
    for name, problem in expected.items():
        with pytest.raises(UserError, match=f"1 of 1 images cannot be read: .*{name} .{problem}"):
            check_images(Manifest((Record(f"bad/{name}"),), str(tmp_path)))


def test_unreadable_images_can_be_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    damaged(tmp_path)
    manifest = scan_folder(tmp_path, skip_unreadable=True)
    assert {record.label for record in manifest.records} == {"good"}
    assert len(manifest) == 3
    assert "left out: 10 of 13 images cannot be read" in caplog.text


def test_nothing_readable_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(UserError, match="1 of 1 images cannot be read"):
        scan_folder(tmp_path, skip_unreadable=True)


def test_missing_files_of_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png \(no such file\)"):
        check_images(Manifest((Record("gone.png"),), str(tmp_path)))


def test_data_after_the_image_is_no_damage(tmp_path: Path) -> None:
    for ending in ("png", "jpg"):
        file = write(tmp_path / f"a.{ending}", pixels(1))
        file.write_bytes(file.read_bytes() + b"camera notes " * 20)
    assert len(scan_folder(tmp_path)) == 2


def facts_of(root: Path):
    return image_facts(scan_folder(root))


def test_facts_sum_up_all_images(tmp_path: Path) -> None:
    write(tmp_path / "a.png", pixels(1, 10, 20, 1))
    write(tmp_path / "b.JPEG", pixels(2, 30, 8, 1))
    facts = facts_of(tmp_path)
    assert (facts.channels, facts.bits) == (1, 8)
    assert (facts.max_height, facts.max_width, facts.total_pixels) == (30, 20, 440)
    assert facts.extensions == (".jpeg", ".png")
    assert facts.survey.height.tolist() == [10, 30]


def gray_as(mode: str) -> Image.Image:
    image = Image.fromarray(pixels(1, channels=1))
    if mode == "P":
        image = image.copy()
        image.putpalette([value for value in range(256) for _ in range(3)])
    return image.convert(mode) if mode != "P" else image


@pytest.mark.parametrize(
    ("name", "mode", "channels"),
    [
        ("a.png", "L", 1),
        ("a.png", "LA", 1),
        ("a.png", "1", 1),
        ("a.png", "P", 1),
        ("a.png", "RGB", 3),
        ("a.png", "RGBA", 3),
        ("a.gif", "L", 1),
        ("a.bmp", "L", 1),
        ("a.bmp", "RGB", 3),
        ("a.jpg", "L", 1),
        ("a.jpg", "RGB", 3),
        ("a.jpg", "CMYK", 3),
        ("a.tif", "L", 1),
        ("a.tif", "RGBA", 3),
    ],
)
def test_channels_of_a_file(tmp_path: Path, name: str, mode: str, channels: int) -> None:
    gray_as(mode).save(tmp_path / name)
    assert facts_of(tmp_path).channels == channels


def test_one_color_image_makes_all_color(tmp_path: Path) -> None:
    write(tmp_path / "a.png", pixels(1, channels=1))
    write(tmp_path / "b.png", pixels(1, channels=3))
    assert facts_of(tmp_path).channels == 3


def test_color_palette_is_color(tmp_path: Path) -> None:
    Image.fromarray(pixels(1)).quantize(16).save(tmp_path / "a.png")
    assert facts_of(tmp_path).channels == 3


def test_bands_of_a_tiff_and_no_mixing(tmp_path: Path) -> None:
    cube = np.zeros((9, 11, 6), np.uint16)
    write_tiff(tmp_path / "a.tif", cube, planarconfig="contig", photometric="minisblack")
    facts = facts_of(tmp_path)
    assert (facts.channels, facts.bits, facts.max_height, facts.max_width) == (6, 16, 9, 11)
    write(tmp_path / "b.png", pixels(1))
    with pytest.raises(UserError, match=r"cannot be mixed: 3 \(.*b\.png\), 6 \(.*a\.tif\)"):
        facts_of(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "bits"), [(np.uint8, 8), (np.uint16, 16), (np.float32, 32), (np.float16, 32)]
)
def test_bits_of_a_tiff(tmp_path: Path, dtype: type, bits: int) -> None:
    write_tiff(tmp_path / "a.tif", np.zeros((5, 7), dtype))
    assert facts_of(tmp_path).bits == bits


def test_sixteen_bit_png(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 6), 40000, np.uint16)).save(tmp_path / "a.png")
    facts = facts_of(tmp_path)
    assert (facts.channels, facts.bits) == (1, 16)


@pytest.mark.slow
def test_ten_thousand_headers_take_seconds(tmp_path: Path) -> None:
    import time

    source = write(tmp_path / "000.png", pixels(1, 64, 64)).read_bytes()
    for number in range(1, 10_000):
        (tmp_path / f"{number}.png").write_bytes(source)
    start = time.perf_counter()
    assert len(scan_folder(tmp_path)) == 10_000
    assert time.perf_counter() - start < 10


KOREAN = "석영"
DECOMPOSED = unicodedata.normalize("NFD", KOREAN)


def test_folders_of_one_name_in_two_forms_are_one_class(tmp_path: Path) -> None:
    for place, name in enumerate((KOREAN, DECOMPOSED, "Grünstein", "Gru\u0308nstein", " a", "a")):
        write(tmp_path / name / f"{place}.png", pixels(place))
    manifest = scan_folder(tmp_path)
    assert manifest.class_names == ("Grünstein", "a", KOREAN)
    assert [record.label for record in manifest.records] == (
        ["Grünstein"] * 2 + ["a"] * 2 + [KOREAN] * 2
    )
    assert all(os.path.exists(file) for file in manifest.files())


def test_splits_and_classes_match_whatever_their_form(tmp_path: Path) -> None:
    write(tmp_path / "train" / KOREAN / "a.png", pixels(1))
    write(tmp_path / "test\u200b" / DECOMPOSED / "b.png", pixels(2))
    manifest = scan_folder(tmp_path)
    assert manifest.splits == ("train", "test")
    assert manifest.class_names == (KOREAN,)


def test_look_alike_classes_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for place, name in enumerate(("Quartz", "quartz", "1", "1.0", "nan")):
        write(tmp_path / name / "a.png", pixels(place))
    assert len(scan_folder(tmp_path).class_names) == 5
    assert "'Quartz' and 'quartz' look alike but are different" in caplog.text
    assert "'1' and '1.0' look alike" in caplog.text
    assert "'nan' stands for a missing value" in caplog.text


RUBBISH = (
    "@eaDir", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found", "#recycle",
    ".AppleDouble", ".Trashes", "@Recycle",
)  # fmt: skip


def test_what_systems_leave_behind_makes_no_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_class_folders(tmp_path, {"a": 1, "b": 1})
    for name in RUBBISH:
        write(tmp_path / name / "SYNOPHOTO_THUMB.png", pixels(1))
        write(tmp_path / "a" / name / "x.png", pixels(1))
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._000.png", "a/Thumbs.db"):
        (tmp_path / name).write_bytes(b"x")
    manifest, left_out = list_with_left_out(tmp_path)
    assert [record.path for record in manifest.records] == ["a/000.png", "b/000.png"]
    assert len(left_out.rubbish) == 2 * len(RUBBISH) + 5
    assert not left_out.others
    with caplog.at_level(logging.INFO):
        scan_folder(tmp_path)
    assert not caplog.records


def test_a_class_that_vanishes_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_class_folders(tmp_path / "train", {"a": 1, "b": 1})
    (tmp_path / "train/c").mkdir()
    (tmp_path / "train/c/x.jp2").write_bytes(b"x")
    (tmp_path / "train/d").mkdir()
    (tmp_path / "test").mkdir()
    write(tmp_path / "train/a/.hidden.png", pixels(1))
    with caplog.at_level(logging.WARNING):
        scan_folder(tmp_path)
    assert "the folder 'train/c' holds no image (only 1 .jp2) and makes no class" in caplog.text
    assert "the folder 'train/d' holds no image (nothing)" in caplog.text
    assert "the folder 'test' holds no image (nothing)" in caplog.text
    assert "1 hidden images are left out (train/a/.hidden.png)" in caplog.text


def test_images_that_have_moved_are_asked_for_by_flag(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "here", {"a": 2})
    scan_folder(tmp_path / "here").save(tmp_path / "run" / "manifest.csv")
    (tmp_path / "here").rename(tmp_path / "there")
    with pytest.raises(UserError, match=r"here.: if they were moved, --image_dir=FOLDER"):
        check_images(Manifest.load(tmp_path / "run" / "manifest.csv"))
    moved = Manifest.load(tmp_path / "run" / "manifest.csv", tmp_path / "there")
    assert len(check_images(moved)) == 2


AWKWARD = (
    "a[0]*?{b}",
    'quo"te\'s', "new\nline", "com,ma;semi", "#1 50%", "-dash", "한글 😀", "=1+1", "~a",
    "$HOME",
    "<script>alert(1)</script>".replace("/", ""),
)  # fmt: skip


def test_awkward_names_are_scanned_saved_and_loaded(tmp_path: Path) -> None:
    for place, name in enumerate(AWKWARD):
        write(tmp_path / "images" / name / f"{name}.png", pixels(place))
    manifest = scan_folder(tmp_path / "images")
    assert manifest.class_names == tuple(sorted(AWKWARD))
    manifest.save(tmp_path / "run" / "m.csv")
    loaded = Manifest.load(tmp_path / "run" / "m.csv")
    assert loaded == manifest
    assert check_images(loaded) == manifest
