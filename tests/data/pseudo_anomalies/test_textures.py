import os
import struct
import zlib

import cv2
import numpy as np
import pytest

from edgead.data.pseudo_anomalies import textures
from edgead.data.pseudo_anomalies.textures import CROP_MIN, KINDS, FolderTextures, ProceduralTextures
from edgead.errors import DataError, ImageError


def rng(seed=0):
    return np.random.default_rng(seed)


def colours(texture):
    return len(np.unique(texture.astype(int) @ (1, 256, 256**2)))


def steps(texture):
    """Differences between horizontal neighbours, in the channel that differs most."""
    return np.abs(np.diff(texture.astype(int), axis=1)).max(axis=2)


def in_directions(texture, count):
    """Share of the edges in `count` equally spaced directions: 1 if all edges have them, 0 for random directions."""
    channel = texture[..., texture.std(axis=(0, 1)).argmax()].astype(np.float32)
    channel = cv2.GaussianBlur(channel, (0, 0), 1.0)
    slope = cv2.Sobel(channel, cv2.CV_32F, 1, 0) + 1j * cv2.Sobel(channel, cv2.CV_32F, 0, 1)
    weight = np.abs(slope) ** 2
    return abs((weight * np.exp(1j * count * np.angle(slope))).sum()) / weight.sum()


def drawn(kind, count=20, size=160):
    generator = rng(1)
    return [KINDS[kind](size, size, generator) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(64, 64), (33, 70), (256, 32), (1, 1), (2, 5)])
def test_each_kind_gives_images_of_any_size_that_follow_from_the_generator(kind, size):
    one, same, other = (KINDS[kind](*size, rng(seed)) for seed in (1, 1, 2))
    assert one.shape == (*size, 3)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, same)
    if min(size) > 2:
        assert (one != other).any()
        assert colours(one) >= 2


def test_only_stripes_have_one_direction_and_only_checks_have_two():
    def likeness(kind, count):
        return np.median([in_directions(texture, count) for texture in drawn(kind, 12)])

    one, two = ({kind: likeness(kind, count) for kind in KINDS} for count in (2, 4))
    assert one.pop("stripes") > 0.95
    assert max(one.values()) < 0.7
    del two["stripes"]
    assert two.pop("checks") > 0.7
    assert max(two.values()) < 0.6


@pytest.mark.parametrize(("kind", "least", "most"), [("checks", 2, 2), ("dots", 2, 2), ("blotches", 3, 6)])
def test_kinds_of_few_colours(kind, least, most):
    counts = {colours(texture) for texture in drawn(kind)}
    assert min(counts) == least
    assert max(counts) == most


def test_dots_are_round():
    """The area of a disc is 0.785 of its bounding square."""
    shares = []
    for texture in drawn("dots"):
        first = (texture == texture[0, 0]).all(axis=2)
        for side in (first, ~first):
            stats = cv2.connectedComponentsWithStats(side.astype(np.uint8), connectivity=4)[2][1:]
            left, top, width, height, area = stats.T
            whole = (left > 0) & (top > 0) & (left + width < 160) & (top + height < 160) & (area > 80)
            shares += list(area[whole] / (width * height)[whole])
    assert len(shares) > 100
    assert 0.74 < np.median(shares) < 0.83


def test_a_gradient_is_smooth_and_cells_are_flat_between_edges():
    # At most four colours are spread over 160 pixels: 40 pixels for a change of 255, and 1.5 times that slope at most.
    assert max(steps(texture).max() for texture in drawn("gradient")) <= 1.5 * 1.5 * 255 / 40
    for texture in drawn("cells"):
        assert (steps(texture) <= 12).mean() > 0.7
    assert max(steps(texture).max() for texture in drawn("cells")) > 100


def test_grain_is_fine_or_coarse_and_has_no_edges_that_go_far():
    def length(texture):
        """Distance in pixels at which the correlation of neighbours falls below 0.2."""
        grey = texture.astype(float).mean(axis=2)
        grey -= grey.mean()
        alike = [(grey[:, :-d] * grey[:, d:]).mean() / (grey * grey).mean() for d in range(1, 60)]
        return int(np.argmax(np.array(alike) < 0.2)) + 1

    lengths = [length(texture) for texture in drawn("grain", 40)]
    assert min(lengths) == 1
    assert 6 <= max(lengths) <= 30


def test_colours_are_dull_and_pure():
    spread = [
        float(np.ptp(texture.astype(int), axis=2).mean()) for kind in KINDS for texture in drawn(kind, 30, 32)
    ]
    assert np.quantile(spread, 0.2) < 12
    assert np.quantile(spread, 0.9) > 60


def test_procedural_textures_are_of_all_kinds(monkeypatch):
    marks = {
        kind: lambda height, width, rng, level=level: np.full((height, width, 3), level, np.uint8)
        for level, kind in enumerate(KINDS)
    }
    monkeypatch.setattr(textures, "KINDS", marks)
    generator = rng(2)
    seen = [ProceduralTextures().draw(2, 3, generator)[0, 0, 0] for _ in range(350)]
    counts = np.bincount(seen)
    assert len(counts) == 7
    assert counts.min() >= 25


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])
    return path


def places(height, width):
    """An image whose red is the column and whose green is the row."""
    red, green = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([red, green, np.full_like(red, 77)], axis=2).astype(np.uint8)


def test_a_folder_gives_pieces_in_proportion_mirrored_or_not(tmp_path):
    write(tmp_path / "a.png", places(200, 240))
    source, generator = FolderTextures(tmp_path), rng(3)
    scales, signs, starts = [], set(), []
    for _ in range(200):
        texture = source.draw(100, 60, generator)
        assert texture.shape == (100, 60, 3)
        assert texture.dtype == np.uint8
        assert (texture[..., 2] == 77).all()
        across, down = texture[50, :, 0].astype(float), texture[:, 30, 1].astype(float)
        assert np.abs(texture[..., 0] - across).max() <= 1
        # One pixel of the texture is equally many pixels of the image along both axes.
        step_across, step_down = np.polyfit(range(60), across, 1)[0], np.polyfit(range(100), down, 1)[0]
        assert abs(step_across) == pytest.approx(abs(step_down), abs=0.04)
        scales.append(abs(step_down))
        signs.add((step_across > 0, step_down > 0))
        starts.append((across.min(), down.min()))
    # The largest crop that fits is 200 pixels high, two for each pixel of the texture.
    assert 2 * CROP_MIN - 0.03 < min(scales) < 2 * CROP_MIN + 0.1
    assert 1.9 < max(scales) < 2.02
    assert len(signs) == 4
    assert np.ptp(starts, axis=0).min() > 60


def test_a_small_image_is_enlarged_and_a_large_one_averaged(tmp_path):
    write(tmp_path / "small" / "a.png", places(20, 20))
    texture = FolderTextures(tmp_path / "small").draw(100, 100, rng())
    assert np.abs(np.diff(texture[..., 0].astype(int), axis=1)).max() <= 1
    board = np.indices((400, 400)).sum(axis=0) % 2 * 255
    write(tmp_path / "large" / "a.png", np.stack([board] * 3, axis=2).astype(np.uint8))
    averaged = FolderTextures(tmp_path / "large").draw(40, 40, rng()).astype(int)
    assert np.abs(averaged - 127.5).max() < 30


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 2)])
def test_any_image_will_do(tmp_path, shape):
    write(tmp_path / "a.png", places(*shape))
    assert FolderTextures(tmp_path).draw(64, 32, rng()).shape == (64, 32, 3)


def test_textures_follow_from_the_generator_and_all_images_are_used(tmp_path):
    for level in range(5):
        write(tmp_path / "deep" / str(level) / "t.JPG", np.full((40, 40, 3), 50 * level, np.uint8))
    source = FolderTextures(tmp_path)
    one, same = ([source.draw(8, 8, generator) for _ in range(60)] for generator in (rng(4), rng(4)))
    np.testing.assert_array_equal(one, same)
    assert {round(texture.mean() / 50) for texture in one} == set(range(5))


def test_images_are_found_in_all_folders_in_a_fixed_order(tmp_path):
    image = places(4, 4)
    expected = [
        write(tmp_path / name, image) for name in ("z.png", "a/1.jpg", "a/2.PNG", "b/c/d.tiff", "b/e.bmp")
    ]
    for name in (".hidden.png", ".git/x.png", "a/._1.jpg"):
        write(tmp_path / name, image)
    (tmp_path / "a" / "read.me").touch()
    (tmp_path / "b" / "back").symlink_to(tmp_path, target_is_directory=True)
    paths = FolderTextures(tmp_path).paths
    assert set(paths) == set(expected)
    assert len(paths) == 5
    assert FolderTextures(str(tmp_path)).paths == paths


def test_a_missing_folder_a_file_and_a_folder_without_images_are_distinguished(tmp_path):
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    (tmp_path / "file").touch()
    reasons = set()
    for name in ("missing", "file", "empty"):
        with pytest.raises(DataError) as caught:
            FolderTextures(tmp_path / name)
        assert str(tmp_path / name) in caught.value.what
        assert ("PNG" in str(caught.value.hint)) == (name == "empty")
        assert "\n" not in str(caught.value)
        reasons.add(caught.value.what.replace(str(tmp_path / name), ""))
    assert len(reasons) == 3


def test_a_folder_of_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(textures, "MAX_FILES", 3)
    for name in ("1.png", "a/2.png", "a/notes.txt"):
        write(tmp_path / name, places(2, 2)) if name.endswith("png") else (tmp_path / name).touch()
    assert len(FolderTextures(tmp_path).paths) == 2
    (tmp_path / "more").touch()
    with pytest.raises(DataError) as caught:
        FolderTextures(tmp_path)
    assert str(tmp_path) in caught.value.what
    assert "3 files" in caught.value.what


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
    write(tmp_path / "closed" / "a.png", places(2, 2))
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError) as caught:
        FolderTextures(tmp_path)
    assert str(tmp_path / "closed") in caught.value.what
    assert isinstance(caught.value.__cause__, PermissionError)


def test_a_broken_image_and_a_gigantic_one_are_named(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "t.png").write_text("this is text")
    with pytest.raises(ImageError) as broken:
        FolderTextures(tmp_path / "text").draw(8, 8, rng())
    assert "t.png" in broken.value.what

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    (tmp_path / "bomb").mkdir()
    (tmp_path / "bomb" / "b.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    with pytest.raises(ImageError) as gigantic:
        FolderTextures(tmp_path / "bomb").draw(8, 8, rng())
    assert "b.png" in gigantic.value.what
    assert "60000 x 60000" in gigantic.value.what
