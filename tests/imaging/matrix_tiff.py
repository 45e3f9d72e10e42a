"""TIFF files of the image matrix, written by tifffile and Pillow."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np
import tifffile
from PIL import Image

from tests.imaging.matrix_files import Case, as_rgb, packed, saved, smooth, turned

PACKED_DEPTHS = tuple(range(1, 17))


def tiff(values: np.ndarray, *, bigtiff: bool = False, order: str = "<", **options: object) -> bytes:
    """Write one image with tifffile, without its own descriptions."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=bigtiff, byteorder=order) as writer:
        writer.write(values, metadata=None, **options)
    return buffer.getvalue()


def by_hand(width: int, content: bytes, order: str, **tags: int | tuple[int, ...]) -> bytes:
    """A TIFF of one strip, from numbers of tags: `t258=12` sets the tag 258."""
    height = 21
    known: dict[int, int | tuple[int, ...]] = {
        256: width,
        257: height,
        259: 1,
        273: 0,
        278: height,
        279: len(content),
    }
    known |= {int(name[1:]): value for name, value in tags.items()}
    content += bytes(len(content) % 2)
    lists, entries = b"", []
    after = 8 + len(content)
    for tag, value in sorted(known.items()):
        numbers = value if isinstance(value, tuple) else (value,)
        if tag == 273:
            numbers = (8,) * (len(known[279]) if isinstance(known[279], tuple) else 1)
        kind = "I" if tag in (273, 279) else "H"
        body = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        if len(body) > 4:
            field, lists = struct.pack(order + "I", after + len(lists)), lists + body
        else:
            field = body.ljust(4, b"\0")
        entries.append(struct.pack(order + "HHI", tag, 4 if kind == "I" else 3, len(numbers)) + field)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", after + len(lists))
    directory = struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)
    return head + content + lists + directory


def read_unless(refusal: str, name: str, data: bytes, shown: np.ndarray) -> Case:
    """A case that is read, or refused by a name."""
    return Case(name, data, None, refusal) if refusal else Case(name, data, shown)


def tiff_cases() -> Iterator[Case]:
    """The common variants, each at least once."""
    yield from depth_cases()
    yield from colour_cases()
    yield from refused_cases()
    rgb = smooth(255, 3)
    for orientation in range(1, 9):
        for order in "<>":
            extra = [(274, "H", 1, orientation, True)]
            data = tiff(rgb, order=order, photometric="rgb", extratags=extra)
            yield Case(f"tiff-turned-{orientation}{order}", data, turned(rgb, orientation))
            for peak in (255, 65535):
                values = smooth(peak, 3)
                data = tiff(values, order=order, photometric="rgb", extratags=extra, compression="lzw")
                shown = turned(np.rint(values / (peak / 255)).astype(np.uint8), orientation)
                refusal = "with an orientation" if peak > 255 and orientation > 1 else ""
                yield read_unless(
                    refusal, f"tiff-turned-lzw-{peak.bit_length()}-{orientation}{order}", data, shown
                )
    deep = smooth(65535, 3)
    yield Case("tiff-several-pages", two_pages(rgb), rgb)
    yield Case("tiff-big", tiff(deep, bigtiff=True, photometric="rgb"), as_rgb(deep, 65535))
    for kind in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        data = saved(Image.fromarray(rgb), "TIFF", compression=kind)
        yield Case(f"tiff-libtiff-{kind}", data, rgb)
        data = saved(Image.fromarray(smooth(255, 1)[..., 0] > 99), "TIFF", compression=kind)
        yield Case(f"tiff-libtiff-1-{kind}", data, as_rgb(smooth(255, 1) > 99, 1))


def two_pages(rgb: np.ndarray) -> bytes:
    """A TIFF of two images, of which the first one counts."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(rgb, photometric="rgb", metadata=None)
        writer.write(255 - rgb, photometric="rgb", metadata=None)
    return buffer.getvalue()


def depth_cases() -> Iterator[Case]:
    """Grey of 1 to 16 bits, packed; both photometric senses, byte orders and fill orders."""
    flipped = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
    for depth in PACKED_DEPTHS:
        peak = 2**depth - 1
        # tifffile alone unpacks these.
        refusal = "" if depth in (1, 8, 16) else f"{depth}-bit TIFF"
        grey = smooth(peak, 1)
        for order in "<>":
            rows = packed(grey, depth).tobytes() if depth < 16 else grey.astype(order + "u2").tobytes()
            for photometric in (0, 1):
                shown = as_rgb(grey if photometric else peak - grey, peak)
                data = by_hand(34, rows, order, t258=depth, t262=photometric, t277=1)
                yield read_unless(refusal, f"tiff-{depth}{order}-sense{photometric}", data, shown)
            data = by_hand(34, rows.translate(flipped), order, t258=depth, t262=1, t266=2, t277=1)
            yield read_unless(refusal, f"tiff-{depth}{order}-reversed-bits", data, as_rgb(grey, peak))
        if depth <= 8:
            palette = np.random.default_rng(depth).integers(0, 256, (2**depth, 3))
            table = tuple((palette.T * 257).ravel().tolist())
            data = by_hand(34, packed(grey, depth).tobytes(), "<", t258=depth, t262=3, t277=1, t320=table)
            yield read_unless(refusal, f"tiff-{depth}-palette", data, palette[grey[..., 0]])
        rgb = smooth(peak, 3)
        rows = packed(rgb, depth).tobytes() if depth < 16 else rgb.astype("<u2").tobytes()
        data = by_hand(34, rows, "<", t258=(depth,) * 3, t262=2, t277=3)
        yield read_unless(
            refusal or "1-bit TIFF" * (depth == 1), f"tiff-{depth}-rgb", data, as_rgb(rgb, peak)
        )


def colour_cases() -> Iterator[Case]:
    """Opacity of each kind, and samples that are no opacity."""
    for peak in (255, 65535):
        rgba, both = smooth(peak, 4), smooth(peak, 2)
        mark = f"tiff-{peak.bit_length()}"
        for name, values in {"rgba": rgba, "grey-alpha": both}.items():
            photometric = "rgb" if name == "rgba" else "minisblack"
            colour, share = values[..., :-1], values[..., -1:] / peak
            for kind, shown in {
                "unassalpha": colour * share,
                "assocalpha": colour,
                "unspecified": colour,
            }.items():
                for planar in ("contig", "separate"):
                    stored = values if planar == "contig" else np.moveaxis(values, 2, 0)
                    options = {"photometric": photometric, "extrasamples": [kind], "planarconfig": planar}
                    data = tiff(stored, **options)
                    yield Case(f"{mark}-{name}-{kind}-{planar}", data, as_rgb(shown, peak))
                    data = tiff(stored, **options, compression="lzw")
                    read = name == "rgba" and kind == "unassalpha" and (planar == "contig" or peak == 255)
                    read |= name == "rgba" and peak == 255 and kind == "unspecified"
                    yield read_unless(
                        "" if read else "LZW TIFF",
                        f"{mark}-{name}-{kind}-{planar}-lzw",
                        data,
                        as_rgb(shown, peak),
                    )
        five = np.concatenate([rgba, rgba[..., :1]], axis=2)
        data = tiff(
            five, photometric="rgb", extrasamples=["unspecified", "unspecified"], planarconfig="contig"
        )
        yield Case(f"{mark}-five-samples", data, as_rgb(rgba[..., :3], peak))


def refused_cases() -> Iterator[Case]:
    """What is refused, by the name of its property."""
    rgb, grey = smooth(255, 3), smooth(255, 1)[..., 0]
    image = Image.fromarray(rgb)
    yield Case("tiff-float32", tiff(grey.astype(np.float32)), None, "32-bit float TIFF")
    yield Case("tiff-float16", tiff(grey.astype(np.float16)), None, "16-bit float TIFF")
    yield Case("tiff-float64", tiff(grey.astype(np.float64)), None, "64-bit float TIFF")
    yield Case("tiff-int16", tiff(grey.astype(np.int16)), None, "signed 16-bit TIFF")
    yield Case("tiff-uint32", tiff(grey.astype(np.uint32)), None, "32-bit TIFF")
    cmyk = np.array(image.convert("CMYK"))
    yield Case("tiff-cmyk", tiff(cmyk, photometric="separated"), None, "CMYK TIFF")
    yield Case("tiff-lab", saved(image.convert("LAB"), "TIFF"), None, "Lab TIFF")
    yield Case("tiff-ycbcr", saved(image.convert("YCbCr"), "TIFF"), None, "YCbCr TIFF")
    yield Case("tiff-cfa", tiff(grey, photometric="cfa"), None, "CFA")
    yield Case("tiff-jpeg", tiff(rgb, photometric="rgb", compression="jpeg"), None, "YCbCr TIFF")
    yield Case("tiff-jpeg-grey", tiff(grey, compression="jpeg"), None, "JPEG compression")
    for kind, name in {"zstd": "Zstandard", "lzma": "LZMA", "webp": "WebP"}.items():
        data = tiff(rgb, photometric="rgb", compression=kind)
        yield Case(f"tiff-{kind}", data, None, f"{name} compression")
    data = saved(Image.fromarray(grey > 99), "TIFF", compression="group4")
    yield Case("tiff-fax", data, None, "CCITT fax 4 compression")
    yield Case(
        "tiff-mixed", by_hand(34, bytes(2048), "<", t258=(5, 6, 5), t262=2, t277=3), None, "5 and 6 bits"
    )


def layout_cases() -> Iterator[Case]:
    """All combinations of depth, colour, planes, byte order, compression, predictor, strips and tiles."""
    shapes = {"strip": {}, "strips": {"rowsperstrip": 4}, "tiles": {"tile": (16, 32)}}
    packings = [(None, False), ("packbits", False)]
    packings += [(kind, predicts) for kind in ("lzw", "zlib", "deflate") for predicts in (False, True)]
    for peak in (255, 65535):
        for channels in (1, 3):
            values = smooth(peak, channels, 37, 70)
            for planar in ("contig", "separate") if channels == 3 else ("contig",):
                stored = values if planar == "contig" else np.moveaxis(values, 2, 0)
                options = {"planarconfig": planar} if channels == 3 else {}
                for order in "<>":
                    for packing, predicts in packings:
                        for shape, size in shapes.items():
                            for big in (False, True):
                                data = tiff(
                                    stored if channels == 3 else values[..., 0],
                                    bigtiff=big,
                                    order=order,
                                    photometric="rgb" if channels == 3 else "minisblack",
                                    compression=packing,
                                    predictor=predicts,
                                    **options,
                                    **size,
                                )
                                parts = (
                                    peak.bit_length(),
                                    channels,
                                    planar,
                                    order,
                                    packing,
                                    predicts,
                                    shape,
                                    big,
                                )
                                name = "-".join(map(str, ("tiff", *parts)))
                                refusal = ""
                                if packing == "lzw" and planar == "separate" and peak > 255:
                                    refusal = "planar 16-bit LZW TIFF"
                                elif packing == "lzw" and big and order == ">" and peak == 255:
                                    refusal = "big-endian BigTIFF"
                                yield read_unless(refusal, name, data, as_rgb(values, peak))
