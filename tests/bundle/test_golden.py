from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from edgead.bundle.golden import GOLDEN_PAIRS, MAX_IMAGES, Golden, golden_bytes, read_golden
from edgead.bundle.part_names import MAX_PARTS
from edgead.errors import BundleError
from edgead.imaging.preprocess import ModelSize


def golden_of(count: int = 2) -> Golden:
    rng = np.random.default_rng(5)
    maps = rng.random((count, 1, 32, 64), dtype=np.float32)
    images = rng.integers(0, 256, (count, 32, 64, 3), dtype=np.uint8)
    chart = rng.integers(0, 256, 100, dtype=np.uint8)
    return Golden(images, maps, maps.max(axis=(1, 2, 3)), np.arange(count, dtype=np.uint8), chart)


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def read(content: bytes, parts: int = MAX_PARTS) -> Golden:
    return read_golden(content, "bundle/golden.npz", ModelSize(32, 64), parts)


@pytest.mark.parametrize("count", [1, MAX_IMAGES])
def test_what_is_written_is_read(count):
    golden = golden_of(count)
    images, anomaly_map, anomaly_score, part, chart = read(golden_bytes(golden))
    np.testing.assert_array_equal(images, golden.images)
    np.testing.assert_array_equal(anomaly_map, golden.anomaly_map)
    np.testing.assert_array_equal(anomaly_score, golden.anomaly_score)
    np.testing.assert_array_equal(part, golden.part)
    np.testing.assert_array_equal(chart, golden.chart)
    assert (images.dtype, anomaly_map.dtype, anomaly_score.dtype) == (np.uint8, np.float32, np.float32)


def test_few_parts_have_few_images():
    """A bundle of one part with as many images as 32 parts may have was made to fill the memory."""
    content = golden_bytes(golden_of(2 * GOLDEN_PAIRS + 2))
    assert len(read(content, GOLDEN_PAIRS + 1).images) == 2 * GOLDEN_PAIRS + 2
    with pytest.raises(BundleError):
        read(content, 1)


def test_a_view_is_written_as_what_it_shows():
    golden = golden_of()
    golden = golden._replace(images=golden.images[:, :, ::-1])
    np.testing.assert_array_equal(read(golden_bytes(golden)).images, golden.images)


@pytest.mark.parametrize(
    ("wrong", "value"),
    [
        (golden_of()._replace(anomaly_score=np.zeros(2)), "anomaly_score"),
        (golden_of()._replace(anomaly_map=np.zeros((2, 32, 64), np.float32)), r"\(2, 32, 64\)"),
        (golden_of(MAX_IMAGES + 1), str(MAX_IMAGES + 1)),
        (golden_of()._replace(chart=np.zeros(0, np.uint8)), r"\(0,\)"),
        (Golden(*(array[:0] for array in golden_of())), f"{MAX_IMAGES} .* 0"),
    ],
)
def test_arrays_that_could_not_be_read_are_not_written(wrong, value):
    with pytest.raises(ValueError, match=value):
        golden_bytes(wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"anomaly_score": np.array([object(), object()])},
        {"images": np.full((2, 32, 64, 3), None)},
        {"images": golden_of().images.astype(np.float32)},
        {"images": golden_of().images[:, :16]},
        {"images": np.asfortranarray(golden_of().images)},
        {"images": golden_of(3).images},
        {"anomaly_map": golden_of().anomaly_map.astype(">f4")},
        {"anomaly_score": np.zeros((2, 1), np.float32)},
        {"anomaly_score": np.zeros(MAX_IMAGES + 1, np.float32)},
        {"anomaly_score": np.zeros(0, np.float32)},
        {"part": np.zeros(2, np.int64)},
        {"part": np.zeros(3, np.uint8)},
        {"chart": np.zeros(0, np.uint8)},
        {"chart": np.zeros((2, 2), np.uint8)},
        {"chart": np.zeros(8 * 32 * 64 + 1, np.uint8)},
        {"chart": np.zeros(9, np.int8)},
    ],
    ids=lambda change: "-".join(f"{name}{array.shape}{array.dtype}" for name, array in change.items()),
)
def test_other_types_and_shapes_are_refused(change):
    content = npz(**{**golden_of()._asdict(), **change})
    with pytest.raises(BundleError) as caught:
        read(content)
    assert "golden.npz" in caught.value.what
    assert "32x64" in caught.value.what
    assert "edgead build" in (caught.value.hint or "")


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_compression_that_numpy_does_not_write_is_refused(compression):
    """A header of LZMA may ask for a dictionary of 4 GiB."""
    with zipfile.ZipFile(io.BytesIO(golden_bytes(golden_of()))) as archive:
        arrays = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in arrays.items():
            archive.writestr(name, content)
    with pytest.raises(BundleError, match="compression"):
        read(buffer.getvalue())


def test_a_long_list_of_arrays_is_refused():
    buffer = io.BytesIO(golden_bytes(golden_of()))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("more.npy", b"")
    with pytest.raises(BundleError, match="6 arrays"):
        read(buffer.getvalue())


def test_a_second_end_of_the_archive_with_larger_numbers_is_refused():
    """An archive of more than 4 GiB has one, and its numbers count."""
    content = golden_bytes(golden_of())
    locator = b"PK\6\7" + bytes(16)
    with pytest.raises(BundleError, match="no archive of arrays"):
        read(content[:-22] + locator + content[-22:])


@pytest.mark.parametrize("name", Golden._fields)
def test_a_missing_array_is_refused(name):
    arrays = golden_of()._asdict()
    del arrays[name]
    with pytest.raises(BundleError, match=name):
        read(npz(**arrays))


@pytest.mark.parametrize("content", [b"", b"no zip at all", golden_bytes(golden_of())[:200]])
def test_other_content_than_an_archive_is_refused(content):
    with pytest.raises(BundleError, match="edgead build"):
        read(content)


@pytest.mark.parametrize(("offset", "value"), [(6, 1), (8, 14)], ids=["encrypted", "another-compression"])
def test_a_member_that_cannot_be_unpacked_is_refused(offset, value):
    content = bytearray(golden_bytes(golden_of()))
    for signature, shift in ((b"PK\3\4", 0), (b"PK\1\2", 2)):
        place = content.find(signature)
        while place >= 0:
            content[place + offset + shift] = value
            place = content.find(signature, place + 4)
    with pytest.raises(BundleError, match="edgead build"):
        read(bytes(content))


def rewritten(member: str, content: bytes) -> bytes:
    """The golden archive with one member replaced."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(golden_bytes(golden_of()))) as source,
        zipfile.ZipFile(buffer, "w") as target,
    ):
        for name in source.namelist():
            target.writestr(name, content if name == member else source.read(name))
    return buffer.getvalue()


def header(shape: tuple[int, ...], version: tuple[int, int] = (1, 0)) -> bytes:
    buffer = io.BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": shape}
    write = (
        np.lib.format.write_array_header_1_0 if version == (1, 0) else np.lib.format.write_array_header_2_0
    )
    write(buffer, description)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (header((10**15, 32, 64, 3)), str(10**15)),
        (header((2, 32, 64, 3)) + bytes(100), "100"),
        (header((2, 32, 64, 3), (2, 0)) + bytes(2 * 32 * 64 * 3), "(2, 0)"),
        (b"\x93NUMPY\x01\x00", "golden.npz"),
        (b"\x93NUMPY\x01\x00\x08\x00{'a': ((", "golden.npz"),
        (b"\x93NUMPY\x01\x00\x08\x00{[]: 0} ", "golden.npz"),
        (b"", "golden.npz"),
    ],
    ids=["huge", "short", "other-version", "no-header", "open-header", "odd-header", "empty"],
)
def test_a_header_is_not_believed(content, value):
    with pytest.raises(BundleError) as caught:
        read(rewritten("images.npy", content))
    assert value in caught.value.what
