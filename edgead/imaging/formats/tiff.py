"""TIFF and BigTIFF, decoded here, because OpenCV returns wrong pixels for some of their many variants.

A file is a list of strips or tiles. Each is decompressed, unpacked to samples and put into its place, and only then
are palette, photometric sense and opacity applied. What a variant needs beyond that is refused by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgead.imaging.formats.exif import known_orientation
from edgead.imaging.formats.pixels import (
    MAX_PIXELS,
    DamagedImageError,
    Pixels,
    Samples,
    UnsupportedImageError,
    check_size,
)
from edgead.imaging.formats.tiff_directory import Directory, read_directory
from edgead.imaging.formats.tiff_pieces import COMPRESSIONS, Piece, samples_of_piece

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _STRIP_BYTES, _SAMPLES, _STRIP_ROWS, _PLANAR, _PREDICTOR = 273, 279, 277, 278, 284, 317
_COLOURS, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 320, 322, 323, 324, 325
_EXTRA, _FORMAT, _LARGEST_VALUE = 338, 339, 341
_TAGS = frozenset(
    (*range(256, 260), 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, *range(322, 326), 338, 339, 341)
)

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE = 0, 1, 2, 3
_PHOTOMETRICS = {
    None: "TIFF without a photometric interpretation",
    4: "TIFF of a transparency mask",
    5: "CMYK TIFF",
    6: "YCbCr TIFF",
    8: "CIE Lab TIFF",
    9: "ICC Lab TIFF",
    10: "ITU Lab TIFF",
    32803: "TIFF of a raw sensor image (CFA)",
    32844: "LogL TIFF",
    32845: "LogLuv TIFF",
    34892: "TIFF of a raw sensor image (linear raw)",
}
_FORMATS = {2: "signed {}-bit TIFF", 3: "{}-bit float TIFF", 5: "complex TIFF", 6: "complex float TIFF"}
_PREMULTIPLIED, _STRAIGHT = 1, 2
# Largest values of cameras of 10, 12 and 14 bits; any other value is a property of the one image.
_CAMERA_PEAKS = (2**10 - 1, 2**12 - 1, 2**14 - 1)
# Bytes of all samples of an image, and of all tiles, that a decoder allocates.
_MAX_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class _Layout:
    """Checked properties of an image.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        depth: Bits of a sample.
        samples: Samples of a pixel.
        planes: Number of planes, each with its own pieces; 1 if the samples of a pixel lie side by side.
        photometric: 0 white is zero, 1 black is zero, 2 RGB, 3 palette.
        piece: Encoding of the pieces.
        offsets: Offset of each piece in the file.
        lengths: Length of each piece in bytes.
        tiled: Whether the pieces are tiles, which are whole at the borders too.
    """

    height: int
    width: int
    depth: int
    samples: int
    planes: int
    photometric: int
    piece: Piece
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    tiled: bool


def decode_tiff(data: bytes) -> Pixels:
    """Decode the first image of a TIFF file.

    Args:
        data: Content of the file.

    Returns:
        Grey or RGB pixels. Depths up to 8 bits are uint8, other depths up to 16 bits are uint16.

    Raises:
        DamagedImageError: The file is cut short or damaged.
        UnsupportedImageError: The file has another photometric interpretation, compression, depth or sample format.
        LargeImageError: The image has too many pixels.
    """
    directory = read_directory(data, _TAGS)
    tags = directory.tags
    layout = _layout(directory)
    planes = _decoded(data, layout)
    orientation, peak = known_orientation(tags), 2**layout.depth - 1
    if layout.photometric == _PALETTE:
        return Pixels(
            _coloured(planes[..., 0], tags.get(_COLOURS, ()), layout.depth), orientation=orientation
        )
    colours = 3 if layout.photometric == _RGB else 1
    values, alpha = planes[..., :colours], None
    if layout.samples > colours:
        # A file that does not say what its fourth sample is has an opacity there, as most programs read it.
        kinds = tags.get(_EXTRA, (_STRAIGHT,) if layout.samples == colours + 1 else ())
        if kinds[:1] == (_STRAIGHT,):
            alpha = planes[..., colours : colours + 1]
            if peak not in (255, 65535):
                raise UnsupportedImageError(f"{layout.depth}-bit TIFF with opacity")
    largest = tags.get(_LARGEST_VALUE, ())
    if layout.depth == 16 and largest and set(largest) <= {largest[0]} and largest[0] in _CAMERA_PEAKS:
        peak = largest[0]
    return Pixels(values, peak, alpha, layout.photometric == _WHITE_IS_ZERO, orientation)


def _layout(directory: Directory) -> _Layout:
    """Check the tags; refuse what is not read."""
    tags = directory.tags

    def one(tag: int, default: int) -> int:
        return (tags.get(tag) or (default,))[0]

    height, width, samples = one(_HEIGHT, 0), one(_WIDTH, 0), one(_SAMPLES, 1)
    check_size(height, width)
    depth = _depth(tags)
    photometric = tags.get(_PHOTOMETRIC, (None,))[0]
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE):
        raise UnsupportedImageError(_PHOTOMETRICS.get(photometric, f"TIFF of photometric kind {photometric}"))
    compression, predictor, fill_order = one(_COMPRESSION, 1), one(_PREDICTOR, 1), one(_FILL_ORDER, 1)
    if compression not in COMPRESSIONS:
        raise UnsupportedImageError(f"TIFF with {_name_of_compression(compression)} compression")
    compressor = COMPRESSIONS[compression]
    if not compressor.predicts:
        predictor = 1
    if predictor not in (1, 2) or (predictor == 2 and depth not in (8, 16)):
        raise UnsupportedImageError(f"{depth}-bit TIFF with predictor {predictor}")
    if (
        samples < (3 if photometric == _RGB else 1)
        or samples * height * width * (1 + depth // 9) > _MAX_BYTES
    ):
        raise UnsupportedImageError(f"TIFF with {samples} samples for each pixel")
    planes = samples if one(_PLANAR, 1) == 2 else 1
    tiled = _TILE_WIDTH in tags
    shape = (
        (one(_TILE_HEIGHT, 0), one(_TILE_WIDTH, 0))
        if tiled
        else (min(one(_STRIP_ROWS, height), height), width)
    )
    offsets, lengths = (
        tags.get(tag, ()) for tag in ((_TILES, _TILE_BYTES) if tiled else (_STRIPS, _STRIP_BYTES))
    )
    if min(shape) < 1:
        raise DamagedImageError("its strips or tiles have no pixels")
    count = math.ceil(height / shape[0]) * math.ceil(width / shape[1])
    if len(offsets) < planes * count or len(lengths) < planes * count:
        raise DamagedImageError("it lacks strips or tiles")
    if count * math.prod(shape) * samples > 4 * MAX_PIXELS or max(shape) > 2**20 + width:
        raise UnsupportedImageError("TIFF with tiles that are much larger than the image")
    piece = Piece(shape, samples // planes, depth, compressor, predictor, fill_order, directory.order)
    return _Layout(height, width, depth, samples, planes, photometric, piece, offsets, lengths, tiled)


def _depth(tags: dict[int, tuple[int, ...]]) -> int:
    depths, formats = set(tags.get(_BITS, (1,))), set(tags.get(_FORMAT, (1,)))
    if len(depths) != 1:
        raise UnsupportedImageError(f"TIFF with samples of {' and '.join(map(str, sorted(depths)))} bits")
    (depth,) = depths
    for kind, text in _FORMATS.items():
        if kind in formats:
            raise UnsupportedImageError(text.format(depth))
    if not 1 <= depth <= 16:
        raise UnsupportedImageError(f"{depth}-bit TIFF")
    return depth


def _decoded(data: bytes, layout: _Layout) -> Samples:
    """Decode all pieces into one array (H, W, samples)."""
    if sum(layout.lengths) > len(data):
        # The pieces overlap, which no writer produces. A small file could keep the loop busy for hours.
        raise DamagedImageError("its strips or tiles overlap or lie outside the file")
    image = np.empty(
        (layout.height, layout.width, layout.samples), np.uint8 if layout.depth <= 8 else np.uint16
    )
    rows, columns = layout.piece.shape
    across = math.ceil(layout.width / columns)
    per_plane = math.ceil(layout.height / rows) * across
    for number in range(per_plane * layout.planes):
        plane, place = divmod(number, per_plane)
        top, left = place // across * rows, place % across * columns
        target = image[top : top + rows, left : left + columns]
        if layout.planes > 1:
            target = target[..., plane : plane + 1]
        begin = layout.offsets[number]
        content = data[begin : begin + layout.lengths[number]]
        wanted = rows if layout.tiled else target.shape[0]
        target[:] = samples_of_piece(content, layout.piece, wanted)[: target.shape[0], : target.shape[1]]
    return image


def _coloured(index: Samples, table: tuple[int, ...], depth: int) -> Samples:
    """Apply a palette of 16-bit colours, stored as all reds, all greens and all blues."""
    if depth > 8:
        raise UnsupportedImageError(f"{depth}-bit TIFF with a palette")
    if len(table) != 3 * 2**depth:
        raise DamagedImageError("its palette is incomplete")
    colours = np.array(table, np.uint32).reshape(3, -1).T
    # Old writers store 8-bit colours; then no value is above 255.
    if colours.max() > 255:
        colours = (colours + 128) // 257
    return np.asarray(colours.astype(np.uint8)[index], np.uint8)


def _name_of_compression(compression: int) -> str:
    names = {2: "CCITT", 3: "CCITT fax 3", 4: "CCITT fax 4", 6: "old JPEG", 7: "JPEG", 34712: "JPEG 2000"}
    names |= {
        34887: "LERC",
        34925: "LZMA",
        50000: "Zstandard",
        50001: "WebP",
        50002: "JPEG XL",
        52546: "JPEG XL",
    }
    return names.get(compression, f"unknown ({compression})")
