"""Reading pictures: orientation, depth, transparency, and refusing what is broken."""

from __future__ import annotations

import io
import os
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.artifacts.errors import ImageError
from stages.device.imaging import loading
from stages.device.imaging.colour import to_rgb
from stages.device.imaging.geometry import Size
from stages.device.imaging.loading import check_image, load_image, load_image_bytes, read_size

READERS = (read_size, check_image, load_image)
# Corners: red, green / blue, white.
CORNERS = [[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 255)]]


def scene() -> Image.Image:
    """48×32, every corner another colour."""
    pixels = np.array(CORNERS, np.uint8).repeat(16, 0).repeat(24, 1)
    return Image.fromarray(pixels)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def png_of(width: int, height: int, *, bits: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG written by hand: what Pillow cannot save."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tiff", "jpg", "webp", "avif"])
def test_orientation_is_applied_in_every_format_that_has_one(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    turned = scene() if stored is None else scene().transpose(stored)
    path = saved(tmp_path / f"turned.{suffix}", turned, exif=exif)
    image = load_image(path)
    assert image.size == read_size(path) == check_image(path) == (48, 32)
    difference = np.abs(np.asarray(image, int) - np.asarray(scene(), int))
    assert np.median(difference) <= 2
    assert difference.mean() < 12


def test_orientation_behind_the_pixels_of_a_png_is_found_without_decoding_when_there_is_none(tmp_path: Path) -> None:
    body = Image.Exif()
    body[0x0112] = 6
    exif = body.tobytes().removeprefix(b"Exif\0\0")
    plain = io.BytesIO()
    scene().save(plain, "PNG")
    data = plain.getvalue()
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    behind = tmp_path / "behind.png"
    behind.write_bytes(data[:-12] + chunk + data[-12:])
    assert read_size(behind) == load_image(behind).size == (32, 48)
    cut = tmp_path / "cut.png"
    cut.write_bytes(data[: len(data) // 2])
    assert read_size(cut) == (48, 32)


def test_broken_exif_does_not_spoil_a_good_picture(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", scene(), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert load_image(path).size == read_size(path) == (48, 32)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "LAB", "RGBX", "I;16", "I", "F"])
def test_every_mode_becomes_its_rgb(tmp_path: Path, mode: str) -> None:
    """Grey 102 (a web-palette grey) survives every mode; JPEG and TIFF keep those that PNG does not."""
    grey = Image.new("L", (20, 10), 102)
    scaled = {"I;16": 102 * 257, "I": 102 * 257, "F": 102 / 255}
    if mode in scaled:
        ramp = np.full((10, 20), scaled[mode])
        ramp[0, 0] = scaled[mode] * 255 / 102  # white somewhere: what the scale is found by
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray(ramp.astype(kind))
    else:
        image = grey.convert("RGB").convert(mode) if mode != "LA" else grey.convert("LA")
    assert image.mode == mode
    loaded = load_image(saved(tmp_path / "x.tiff", image))
    assert loaded.mode == "RGB"
    expected = np.asarray(image.convert("L")) if mode == "1" else np.full((10, 20), 102)
    if mode in scaled:
        expected[0, 0] = 255
    assert np.abs(np.asarray(loaded, int) - expected[..., None]).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "pgm", "tiff"])
def test_a_16_bit_ramp_stays_monotonic_over_the_full_range(tmp_path: Path, suffix: str) -> None:
    ramp = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    loaded = np.asarray(load_image(saved(tmp_path / f"ramp.{suffix}", Image.fromarray(ramp))))
    grey = loaded[..., 0].ravel().astype(int)
    assert (grey[0], grey[-1]) == (0, 255)
    assert set(np.diff(grey)) == {0, 1}
    np.testing.assert_array_equal(grey, np.rint(ramp.ravel() / 257))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 255]], np.uint16), [0, 255]),  # 8-bit values in 16-bit samples
        (np.array([[0, 256, 65535]], np.uint16), [0, 1, 255]),
        (np.array([[0, 2**20, 2**21]], np.int32), [0, 128, 255]),
        (np.array([[-100, 0, 100]], np.int32), [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 127.5, 255.0]], np.float32), [0, 128, 255]),
        (np.array([[np.nan, np.inf, 1.0]], np.float32), [0, 0, 255]),
        (np.array([[0.0, 0.0]], np.float32), [0, 0]),
        (np.array([[-3.0, -3.0]], np.float32), [0, 0]),
    ],
)
def test_deep_grey_in_tiff_is_scaled_by_what_it_holds(tmp_path: Path, values: np.ndarray, expected: list[int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_image(saved(tmp_path / "deep.tiff", Image.fromarray(values)))
    assert np.asarray(loaded)[0, :, 0].tolist() == expected


def test_white_is_zero_in_a_16_bit_tiff(tmp_path: Path) -> None:
    path = saved(tmp_path / "fax.tiff", Image.fromarray(np.array([[0, 65535]], np.uint16)), tiffinfo={262: 0})
    assert np.asarray(load_image(path))[0, :, 0].tolist() == [255, 0]


def test_12_bits_in_a_tiff_are_scaled_by_4095(tmp_path: Path) -> None:
    """Written by hand: Pillow packs no 12-bit samples."""
    tags = [(256, 3, 2), (257, 3, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 122), (277, 3, 1)]
    tags += [(278, 3, 1), (279, 4, 3)]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + struct.pack("<I", 0)
    path = tmp_path / "scan.tiff"
    path.write_bytes(head + bytes([0x80, 0x0F, 0xFF]))  # 0x800, 0xFFF
    assert np.asarray(load_image(path))[0, :, 0].tolist() == [128, 255]


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA"])
def test_rare_modes_with_alpha_lie_on_white_too(mode: str) -> None:
    """No file format opens as these; programs that hold pictures do."""
    base = {"La": "LA", "RGBa": "RGBA", "PA": "P"}[mode]
    image = Image.new(base, (2, 1), 0).convert(mode)
    if mode == "PA":
        image.putpalette([10, 10, 10, 0, 0, 0] * 2)
        image.putpixel((0, 0), (0, 0))
        image.putpixel((1, 0), (0, 255))
        assert np.asarray(to_rgb(image))[0].tolist() == [[255] * 3, [10] * 3]
    else:
        assert np.asarray(to_rgb(image))[0].tolist() == [[255] * 3] * 2


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    red_half = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    red_half.putpixel((1, 0), (255, 0, 0, 128))
    loaded = load_image(saved(tmp_path / "a.png", red_half))
    assert loaded.getpixel((0, 0)) == (255, 255, 255)
    assert loaded.getpixel((1, 0)) == (255, 127, 127)
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 9, 9, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    loaded = load_image(saved(tmp_path / "p.png", palette, transparency=0))
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (200, 100, 50)]
    loaded = load_image(saved(tmp_path / "alphas.png", palette, transparency=bytes([255, 0])))
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(9, 9, 9), (255, 255, 255)]
    grey = Image.fromarray(np.array([[7, 200]], np.uint8))
    loaded = load_image(saved(tmp_path / "l.png", grey, transparency=7))
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(255,) * 3, (200,) * 3]


def test_a_transparent_colour_of_16_bits_is_compared_with_16_bits(tmp_path: Path) -> None:
    def trns(*values: int) -> bytes:
        body = struct.pack(f">{len(values)}H", *values)
        return struct.pack(">I", len(body)) + b"tRNS" + body + struct.pack(">I", zlib.crc32(b"tRNS" + body))

    path = tmp_path / "grey.png"
    rows = b"\0" + struct.pack(">2H", 0x1234, 0x12FF)
    path.write_bytes(png_of(2, 1, bits=16, colour=0, rows=rows, extra=trns(0x1234)))
    assert np.asarray(load_image(path))[0, :, 0].tolist() == [255, 0x13]
    path = tmp_path / "rgb.png"
    rows = b"\0" + struct.pack(">6H", 0x1234, 0x5600, 0x7800, 0x3434, 0x5600, 0x7800)
    path.write_bytes(png_of(2, 1, bits=16, colour=2, rows=rows, extra=trns(0x1234, 0x5600, 0x7800)))
    assert np.asarray(load_image(path))[0].tolist() == [[255, 255, 255], [0x34, 0x56, 0x78]]


def test_an_animation_is_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    for suffix in ("gif", "webp", "png", "tiff"):
        options = {"lossless": True} if suffix == "webp" else {}
        path = saved(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
        assert load_image(path).getpixel((3, 2)) == (255, 0, 0)


def test_bytes_are_read_like_files(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", scene())
    np.testing.assert_array_equal(load_image_bytes(path.read_bytes(), "upload"), load_image(path))
    with pytest.raises(ImageError, match=r"upload is empty \(0 bytes\)"):
        load_image_bytes(b"", "upload")
    with pytest.raises(ImageError, match="upload is not a picture"):
        load_image_bytes(b"hello, world", "upload")


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_picture_is_named_with_its_reason(tmp_path: Path, reader: object) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "program.eps").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    reasons = {
        "absent.png": "does not exist",
        "empty.jpg": r"is empty \(0 bytes\)",
        "text.png": "is not a picture",
        "folder.png": "is a folder",
        "pipe.png": "is not a regular file",
        "program.eps": "is a drawing in EPS",
    }
    for name, reason in reasons.items():
        with pytest.raises(ImageError, match=f"{name} {reason}") as caught:
            reader(tmp_path / name)  # type: ignore[operator]
        assert caught.value.why
        assert caught.value.fix


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "gif"])
@pytest.mark.parametrize("reader", [check_image, load_image])
def test_a_truncated_picture_is_refused(tmp_path: Path, suffix: str, reader: object) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (200, 300, 3), np.uint8))
    path = saved(tmp_path / f"cut.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ImageError, match=f"cut.{suffix} is (a broken|not a) picture"):
        reader(path)  # type: ignore[operator]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("pixels", [loading.MAX_PIXELS + 1, 4 * loading.MAX_PIXELS])
def test_a_bomb_is_refused_without_decoding(tmp_path: Path, reader: object, pixels: int) -> None:
    """Both just over the limit, where Pillow only warns, and far over it."""
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_of(pixels, 1, bits=1, colour=0, rows=b""))
    filters, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match=r"bomb.png claims more than 89,478,485 pixels"):
        reader(bomb)  # type: ignore[operator]
    assert (warnings.filters, Image.MAX_IMAGE_PIXELS) == (filters, limit)


def test_our_limit_holds_where_pillow_s_is_lifted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_of(loading.MAX_PIXELS + 1, 1, bits=1, colour=0, rows=b""))
    with pytest.raises(ImageError, match="claims more than"):
        read_size(bomb)


def test_running_out_of_memory_is_an_error_of_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(image: Image.Image) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(loading, "to_rgb", no_memory)
    with pytest.raises(ImageError, match="does not fit into the memory"):
        load_image(saved(tmp_path / "a.png", scene()))


def test_an_unreadable_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path) -> Image.Image:
        raise PermissionError(13, "Permission denied")

    path = saved(tmp_path / "a.png", scene())
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(ImageError, match=r"a.png cannot be read: Permission denied"):
        load_image(path)


def test_many_threads_leave_warnings_as_they_were(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    path = saved(tmp_path / "a.png", scene())
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(read_size, [path] * 400))
    assert set(sizes) == {Size(48, 32)}
    assert warnings.filters == before


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "tiff", "bmp", "avif", "ppm"])
def test_spoilt_bytes_give_a_picture_or_one_error(suffix: str) -> None:
    """Whatever a decoder raises on damaged files never comes through as itself."""
    source = random.Random(suffix)
    whole = io.BytesIO()
    scene().resize((40, 30)).save(whole, {"jpg": "jpeg"}.get(suffix, suffix))
    outcomes = {"picture": 0, "error": 0}
    for _ in range(60):
        data = bytearray(whole.getvalue())
        for _ in range(source.choice([1, 3, 20])):
            data[source.randrange(min(len(data), source.choice([30, 400, 10**6])))] = source.randrange(256)
        try:
            assert load_image_bytes(bytes(data), "spoilt").mode == "RGB"
            outcomes["picture"] += 1
        except ImageError as error:
            assert error.what.startswith("spoilt")
            outcomes["error"] += 1
    assert outcomes["error"] > 0
