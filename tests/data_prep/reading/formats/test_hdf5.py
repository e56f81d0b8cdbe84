import ctypes
import os
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from data_prep.check.files import examine
from data_prep.cli.manifest import main
from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.read_options import READING_FIELDS, Declaration, carried, declaration_of
from data_prep.reading.formats import hdf5_process
from data_prep.reading.headers import count_pages, read_header
from data_prep.reading.images import read_image, read_stored
from tests.data_prep.reading.formats.agreement import over_range, read_everywhere

h5py = pytest.importorskip("h5py")

VALUES = np.random.default_rng(0).integers(0, 65536, (40, 32), dtype=np.uint16)


def test_filters_of_hdf5plugin(tmp_path: Path) -> None:
    hdf5plugin = pytest.importorskip("hdf5plugin")
    for name, options in {
        "blosc": hdf5plugin.Blosc(),
        "bitshuffle": hdf5plugin.Bitshuffle(),
        "zstd": hdf5plugin.Zstd(),
        "lz4": hdf5plugin.LZ4(),
        "bzip2": hdf5plugin.BZip2(),
    }.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("image", data=VALUES, **options)
        image = read_everywhere(tmp_path / f"{name}.h5")
        np.testing.assert_array_equal(image[..., 0], over_range(VALUES))


def write_with_filter(path: Path, number: int) -> None:
    """A data set that says it is packed by a filter; its one chunk is not."""
    space = h5py.h5s.create_simple((4, 4))
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((4, 4))
    plan.set_filter(number, h5py.h5z.FLAG_OPTIONAL, ())
    with h5py.File(path, "w") as file:
        made = h5py.h5d.create(file.id, b"image", h5py.h5t.NATIVE_UINT8, space, plan)
        made.write_direct_chunk((0, 0), bytes(16), 0)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_with_filter(tmp_path / "a.h5", 32099)
    with pytest.raises(UserError, match=r"packed by filter 32099 .*h5repack -f GZIP"):
        read_header(str(tmp_path / "a.h5"))
    monkeypatch.setattr(hdf5_process.LIBRARY, "apart", False)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    message = r"packed by filter 32099 .*needs hdf5plugin: pip install 'simclr-tf\[science\]'"
    with pytest.raises(UserError, match=message):
        read_header(str(tmp_path / "a.h5"))
    with pytest.raises(UserError, match=message):
        read_everywhere(tmp_path / "a.h5")


@pytest.mark.parametrize("block", [512, 1024, 4096])
def test_a_user_block_before_the_file(tmp_path: Path, block: int) -> None:
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=block) as file:
        file["image"] = VALUES
    with open(tmp_path / "a.h5", "r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")
    np.testing.assert_array_equal(read_everywhere(tmp_path / "a.h5")[..., 0], over_range(VALUES))


def test_soft_links_and_names_with_blanks(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw data/my image"] = VALUES
        file["raw data/beside"] = h5py.SoftLink("my image")
        file["from here"] = h5py.SoftLink("/raw data")
        file["round"] = h5py.SoftLink("/round")
        file["nowhere"] = h5py.SoftLink("/not/there")
    for name in ("raw data/my image", "/from here/my image", "raw data/beside"):
        image = read_everywhere(tmp_path / "a.h5", f"array={name}")
        np.testing.assert_array_equal(image[..., 0], over_range(VALUES))
    np.testing.assert_array_equal(read_everywhere(tmp_path / "a.h5")[..., 0], over_range(VALUES))
    with pytest.raises(UserError, match="leads in a circle"):
        read_everywhere(tmp_path / "a.h5", "array=round")
    with pytest.raises(UserError, match="no array 'nowhere'"):
        read_everywhere(tmp_path / "a.h5", "array=nowhere")


def write_external(folder: Path) -> str:
    plan = [(str(folder / "secret.bin"), 0, VALUES.nbytes)]
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("image", VALUES.shape, VALUES.dtype, external=plan)
    return ""


def write_virtual(folder: Path) -> str:
    layout = h5py.VirtualLayout(VALUES.shape, VALUES.dtype)
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "image", VALUES.shape)
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_virtual_dataset("image", layout)
    return ""


def write_link(folder: Path) -> str:
    with h5py.File(folder / "a.h5", "w") as file:
        file["image"] = h5py.ExternalLink(str(folder / "secret.h5"), "/image")
    return "array=image"


def write_link_on_the_way(folder: Path) -> str:
    with h5py.File(folder / "a.h5", "w") as file:
        file["other"] = h5py.ExternalLink(str(folder / "secret.h5"), "/")
        file["soft"] = h5py.SoftLink("/other/image")
    return "array=soft"


OTHER_FILES = [write_external, write_virtual, write_link, write_link_on_the_way]


class Watched:
    """Tells whether files of a folder are opened, by C libraries too (Linux: inotify)."""

    def __init__(self, *files: Path) -> None:
        self._libc = ctypes.CDLL(None)
        self._queue = self._libc.inotify_init1(os.O_NONBLOCK)
        for file in files:
            assert self._libc.inotify_add_watch(self._queue, os.fsencode(file), 0x20) > 0

    def opened(self) -> int:
        """Files opened since the last call."""
        try:
            events = os.read(self._queue, 65536)
        except BlockingIOError:
            return 0
        return len(events) // struct.calcsize("iIII")

    def close(self) -> None:
        os.close(self._queue)


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Watched]:
    (tmp_path / "secret.bin").write_bytes(VALUES.tobytes())
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["image"] = VALUES
    watched = Watched(tmp_path / "secret.bin", tmp_path / "secret.h5")
    yield watched
    watched.close()


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is a call of Linux")
@pytest.mark.parametrize("write", OTHER_FILES)
def test_values_in_other_files_are_refused_and_those_not_opened(
    tmp_path: Path, secret: Watched, write: Callable[[Path], str]
) -> None:
    reading = write(tmp_path)
    secret.opened()
    file = str(tmp_path / "a.h5")
    for read in (
        lambda: read_header(file, reading),
        lambda: read_stored(file, reading),
        lambda: count_pages(file, f"{reading};axes=NHW".strip(";")),
        lambda: read_image(file, reading=f"{reading};shape=40,32;dtype=uint16".strip(";")),
        lambda: read_everywhere(tmp_path / "a.h5", reading),
        # Bytes that somebody sent: never, whatever is declared.
        lambda: read_image((tmp_path / "a.h5").read_bytes(), reading=f"{reading};links=follow"),
    ):
        with pytest.raises(UserError, match=r"lie in another file.*--hdf5_links=follow"):
            read()
    assert secret.opened() == 0
    assert read_image(file, reading=f"{reading};links=follow".strip(";")).shape == (40, 32, 1)
    assert secret.opened() > 0


@pytest.mark.parametrize("write", OTHER_FILES)
def test_links_are_followed_when_their_owner_says_so(
    tmp_path: Path, secret: Watched, write: Callable[[Path], str]
) -> None:
    reading = f"{write(tmp_path)};links=follow".strip(";")
    image = read_image(tmp_path / "a.h5", reading=reading)
    np.testing.assert_array_equal(image[..., 0], over_range(VALUES))


def test_links_beside_the_data_set_do_not_matter(tmp_path: Path) -> None:
    write_link(tmp_path)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["own"] = VALUES
    np.testing.assert_array_equal(read_everywhere(tmp_path / "a.h5")[..., 0], over_range(VALUES))


def test_a_link_that_is_all_there_is_needs_no_name(tmp_path: Path, secret: Watched) -> None:
    write_link(tmp_path)
    with pytest.raises(UserError, match=r"link 'image' to values that lie in another file"):
        read_everywhere(tmp_path / "a.h5")
    assert secret.opened() == 0
    image = read_image(tmp_path / "a.h5", reading="links=follow")
    np.testing.assert_array_equal(image[..., 0], over_range(VALUES))


def test_a_virtual_data_set_without_its_file_is_not_zeros(tmp_path: Path) -> None:
    write_virtual(tmp_path)
    with pytest.raises(UserError, match=r"secret\.h5', which is not there"):
        read_image(tmp_path / "a.h5", reading="links=follow")


def test_the_permission_is_a_flag_and_does_not_travel(
    tmp_path: Path, secret: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    write_virtual(tmp_path)
    (tmp_path / "a.h5").rename(images / "a.h5")
    flags = [f"--image_dir={images}", f"--output={tmp_path / 'm.csv'}"]
    assert main(flags) == 1
    assert "lie in another file" in capsys.readouterr().err
    flags.append("--hdf5_links=follow")
    assert main(flags) == 0
    manifest = Manifest.load(str(tmp_path / "m.csv"))
    assert [record.reading for record in manifest.records] == ["links=follow"]
    assert declaration_of(manifest) == Declaration()
    assert "hdf5_links" not in READING_FIELDS
    travelled = carried({"hdf5_links": "follow", "axes": "CHW"})
    assert travelled["axes"] == "CHW"
    assert "hdf5_links" not in travelled


def test_what_was_never_written_is_not_zeros(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("image", (40, 32), "u2", chunks=(10, 32))
        stack = file.create_dataset("stack", (5, 40, 32), "u2", chunks=(1, 20, 32))
        stack[:3] = VALUES
        sparse = file.create_dataset("sparse", (4, 4), "u2", chunks=(2, 2), fillvalue=0)
        sparse[:2] = 1
    with pytest.raises(UserError, match="created, but never written"):
        read_everywhere(tmp_path / "a.h5", "array=image")
    read_everywhere(tmp_path / "a.h5", "array=stack;axes=NHW;page=2")
    with pytest.raises(UserError, match="part was never written"):
        read_everywhere(tmp_path / "a.h5", "array=stack;axes=NHW;page=3")
    assert read_everywhere(tmp_path / "a.h5", "array=sparse").sum() == pytest.approx(8 / 65535)


def test_integers_of_odd_width_need_their_range(tmp_path: Path) -> None:
    twelve = h5py.h5t.NATIVE_UINT16.copy()
    twelve.set_precision(12)
    values = (VALUES >> 4).astype(np.uint16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        space = h5py.h5s.create_simple(values.shape)
        made = h5py.h5d.create(file.id, b"image", twelve, space)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
    with pytest.raises(UserError, match=r"of 12 bits in 16.*--intensity=minmax@0,4095"):
        read_everywhere(tmp_path / "a.h5")
    image = read_everywhere(tmp_path / "a.h5", "intensity=minmax@0,4095")
    np.testing.assert_allclose(image[..., 0], values / 4095, atol=1e-7)


def test_types_that_are_no_intensities(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["text"] = np.array([[b"ab", b"cd"]])
        file["words"] = np.array([["ab", "cd"]], h5py.string_dtype())
        file["complex"] = np.zeros((3, 3), np.complex64)
        file["record"] = np.zeros((3, 3), [("x", "u1"), ("y", "f4")])
        file["empty"] = h5py.Empty("f4")
        file["point"] = 3.0
    for name in ("text", "words", "complex", "record", "empty", "point"):
        with pytest.raises(UserError):
            read_everywhere(tmp_path / "a.h5", f"array={name}")


def test_the_check_names_the_format_behind_a_user_block(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512) as file:
        file["image"] = VALUES
    (tmp_path / "b.fits").write_bytes(b"BZh9")
    manifest = Manifest((Record("a.h5"), Record("b.fits")), str(tmp_path))
    facts = examine(manifest).facts
    assert [fact.format for fact in facts] == ["HDF5", "bzip2"]
    assert [fact.misnamed for fact in facts] == [False, True]
    assert "FITS cannot be read" in facts[1].problem
